"""Gradients of a regressor's output against plain backward passes, for every method and part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.errors import ValuationError
from lipo_cli.model.batches import collate
from lipo_cli.model.regressor import Regressor
from lipo_cli.progress import SilentProgress
from lipo_cli.settings import PEFT_METHODS
from lipo_cli.valuation import gradient_table
from lipo_cli.valuation.gradient_span import MOST_PASSES, fits, spanned
from lipo_cli.valuation.gradient_table import GradientTable, Slab, in_basis, scratch_file, slabs
from lipo_cli.valuation.gradients import OutputGradients
from tests.fixtures.encoders import tiny_roberta
from tests.fixtures.models import LABELS, SMILES, disturb, tiny_checkpoint, tiny_regressor

MOLECULES = list(SMILES)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def fitted(checkpoint: Path, peft) -> Regressor:
    regressor = tiny_regressor(checkpoint, peft)
    disturb(regressor)
    regressor.model.eval()
    return regressor


def by_backward(regressor: Regressor, names: tuple[str, ...], inside: str) -> torch.Tensor:
    """Returns [n, P] gradients by one backward pass for each molecule."""
    parameters = dict(regressor.model.named_parameters())
    rows = []
    for ids in regressor.encode(MOLECULES).ids:
        batch = collate([ids], regressor.pad_id)
        regressor.model.zero_grad()
        output = regressor.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        output.logits[0, 0].backward()
        wanted = [parameters[inside + name] for name in names]
        rows.append(
            torch.cat(
                [
                    torch.zeros(p.numel()) if p.grad is None else p.grad.flatten().clone()
                    for p in wanted
                ]
            )
        )
    return torch.stack(rows)


def jacobian(gradients: OutputGradients) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns [n] predictions and [n, P] gradients in the order of the molecules."""
    values = torch.empty(len(MOLECULES))
    rows = torch.empty(len(MOLECULES), gradients.n_parameters)
    for positions, predicted, found in gradients.jacobian(MOLECULES):
        values[positions], rows[positions] = predicted, found
    return values, rows


@pytest.mark.parametrize("peft", PEFT_METHODS)
@pytest.mark.parametrize("part", ["all", "head", "output"])
def test_products_and_gradients_equal_one_backward_per_molecule(checkpoint, peft, part):
    regressor = fitted(checkpoint, peft)
    gradients = OutputGradients(regressor, part)
    head = next(n for n, m in regressor.model.named_modules() if m is regressor.head())
    truth = by_backward(regressor, gradients.names, "" if part == "all" else f"{head}.")
    values, rows = jacobian(gradients)
    np.testing.assert_allclose(values, regressor.predict(MOLECULES), rtol=0, atol=1e-5)
    scale = float(truth.abs().max())
    assert float((rows - truth).abs().max()) < 1e-5 * scale
    v = torch.randn(gradients.n_parameters, generator=torch.Generator().manual_seed(0))
    predicted, both = gradients.along(MOLECULES, torch.stack([v, -2 * v], dim=1))
    torch.testing.assert_close(both[:, 1], -2 * both[:, 0])
    slopes = both[:, 0]
    np.testing.assert_allclose(predicted, values, atol=1e-5)
    size = float(truth.norm(dim=1).max() * v.norm())
    assert float((slopes - truth @ v).abs().max()) < 1e-5 * size
    weights = torch.linspace(-1, 1, len(MOLECULES))
    pulled = gradients.weighted(MOLECULES, weights)
    assert float((pulled - truth.T @ weights).abs().max()) < 1e-4 * scale
    product = gradients.gauss_newton(MOLECULES, v)
    expected = 2 / len(MOLECULES) * truth.T @ (truth @ v)
    assert float((product - expected).norm()) < 1e-4 * float(expected.norm())


def test_the_hessian_is_the_derivative_of_the_gradient(checkpoint):
    # In float64, by a step too small to cross one of the random features' many kinks.
    regressor = fitted(checkpoint, "full")
    regressor.model.double()
    gradients = OutputGradients(regressor)
    labels = torch.from_numpy(LABELS)
    generator = torch.Generator().manual_seed(0)
    shape = (2, gradients.n_parameters)
    u, v = torch.randn(shape, generator=generator, dtype=torch.float64)
    v /= v.norm()
    of_u, of_v = (gradients.hessian(MOLECULES, labels, w) for w in (u, v))
    assert float(v @ of_u) == pytest.approx(float(u @ of_v), rel=1e-9)  # symmetric

    parameters = [p for p in regressor.model.parameters() if p.requires_grad]
    point = [p.detach().clone() for p in parameters]
    steps = v.split([p.numel() for p in parameters])

    def gradient_at(t: float) -> torch.Tensor:
        for p, origin, step in zip(parameters, point, steps, strict=True):
            p.data = origin + t * step.view_as(p)
        shifted = OutputGradients(regressor)
        predicted = shifted.predictions(MOLECULES)
        return shifted.weighted(MOLECULES, 2 * (predicted - labels) / len(MOLECULES))

    step = 1e-7
    numeric = (gradient_at(step) - gradient_at(-step)) / (2 * step)
    assert float((numeric - of_v).norm()) < 1e-4 * float(of_v.norm())


def test_another_encoder_of_transformers_has_gradients_too(tmp_path):
    regressor = fitted(tiny_roberta(tmp_path / "roberta"), "full")
    gradients = OutputGradients(regressor)
    truth = by_backward(regressor, gradients.names, "")
    _, rows = jacobian(gradients)
    assert float((rows - truth).abs().max()) < 1e-4 * float(truth.abs().max())
    v = torch.randn(gradients.n_parameters, generator=torch.Generator().manual_seed(0))
    _, slopes = gradients.along(MOLECULES, v[:, None])
    slopes = slopes[:, 0]
    size = float(truth.norm(dim=1).max() * v.norm())
    assert float((slopes - truth @ v).abs().max()) < 1e-4 * size
    expected = 2 / len(MOLECULES) * truth.T @ (truth @ v)
    product = gradients.gauss_newton(MOLECULES, v)
    assert float((product - expected).norm()) < 1e-3 * float(expected.norm())
    curved = gradients.hessian(MOLECULES, torch.from_numpy(LABELS).float(), v)
    assert torch.isfinite(curved).all()


def test_the_head_embeds_a_molecule_once(checkpoint, monkeypatch):
    regressor = fitted(checkpoint, "full")
    asked: list[str] = []
    embed = regressor.embed
    monkeypatch.setattr(regressor, "embed", lambda smiles: asked.extend(smiles) or embed(smiles))
    gradients = OutputGradients(regressor, "head")
    v = torch.ones(gradients.n_parameters)
    for _ in range(3):
        gradients.gauss_newton(MOLECULES, v)
    assert sorted(asked) == sorted(MOLECULES)


@pytest.fixture
def scratch() -> Iterator[BufferedRandom]:
    with scratch_file() as file:
        yield file


def test_a_scratch_file_has_no_name_and_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_file() as file:
        file.write(b"gradients")
        file.flush()
        assert list(tmp_path.iterdir()) == []
    assert file.closed


def test_a_file_that_cannot_be_closed_hides_nothing_that_was_told(monkeypatch):
    class Full(BufferedRandom):
        def close(self) -> None:
            super().close()
            raise OSError(28, "No space left on device")

    temporary = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full(temporary(buffering=0)))
    with scratch_file() as stream:
        pass
    assert stream.closed
    with pytest.raises(ValuationError, match="cannot be kept"), scratch_file() as stream:
        raise ValuationError("the gradients cannot be kept")
    assert stream.closed


def test_the_head_reads_embeddings_that_are_known(checkpoint, monkeypatch):
    regressor = fitted(checkpoint, "full")
    known = dict(zip(MOLECULES, regressor.embed(MOLECULES), strict=True))
    expected = OutputGradients(regressor, "head").predictions(MOLECULES)
    monkeypatch.setattr(regressor, "embed", lambda smiles: pytest.fail("embedded again"))
    gradients = OutputGradients(regressor, "head", known)
    torch.testing.assert_close(gradients.predictions(MOLECULES), expected, rtol=1e-6, atol=1e-6)


def test_a_table_that_the_disk_cannot_hold_is_one_line(scratch, monkeypatch):
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(ValuationError, match="No space left on device") as caught:
        GradientTable(scratch, 10, 10)
    assert "TMPDIR" in str(caught.value)


@pytest.mark.parametrize("n_parameters", [5, 400])
def test_a_basis_keeps_every_inner_product(scratch, n_parameters):
    rows = np.random.default_rng(0).normal(size=(30, n_parameters)).astype(np.float32)
    rows[7] = rows[3]  # the same molecule twice spans no new direction
    table = GradientTable(scratch, 30, n_parameters)
    block = (torch.arange(30), torch.arange(30.0), torch.from_numpy(rows))
    assert table.fill(0, [block], 30).tolist() == list(range(30))
    found = in_basis(table.gram())
    assert found.shape[1] == min(29, n_parameters)
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.testing.assert_allclose(found @ found.T, exact, rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(table.whole(), rows)


@pytest.mark.parametrize("first_column", [0, 4])
def test_a_table_in_several_blocks_is_the_table(scratch, monkeypatch, first_column):
    """Blocks of seven columns, the last one narrower; rows arrive in any order."""
    monkeypatch.setattr(gradient_table, "_COLUMN_BYTES", 4 * 30 * 7)
    rows = np.random.default_rng(0).normal(size=(30, 60)).astype(np.float32)
    table = GradientTable(scratch, 30, 50)
    order = np.random.default_rng(1).permutation(30)
    batches = [
        (torch.from_numpy(some), torch.from_numpy(some * 2.0), torch.from_numpy(rows[some]))
        for some in (order[:11], order[11:])
    ]
    assert table.fill(0, batches, 30, first_column).tolist() == [2 * i for i in range(30)]
    taken = rows[:, first_column : first_column + 50]
    np.testing.assert_array_equal(table.whole(), taken)
    exact = taken.astype(np.float64) @ taken.astype(np.float64).T
    np.testing.assert_allclose(table.gram(), exact, rtol=1e-5, atol=1e-5)
    scratch.truncate(100)
    with pytest.raises(ValuationError, match="cut short"):
        table.gram()


def test_parts_of_a_vector_hold_every_number_once():
    sizes = {"a": 3, "b": 4, "c": 11, "d": 2, "e": 5}
    parts = slabs(sizes, 5)
    assert all(part.width <= 5 for part in parts)
    flat = {name: [f"{name}{i}" for i in range(size)] for name, size in sizes.items()}
    taken = [
        number
        for part in parts
        for number in [each for name in part.names for each in flat[name]][part.start : part.stop]
    ]
    assert taken == [number for name in sizes for number in flat[name]]
    assert slabs(sizes, 25) == [Slab(tuple(sizes), 0, 25)]


def test_what_fits_is_counted_in_the_parts_that_are_made(checkpoint):
    gradients = OutputGradients(fitted(checkpoint, "lora"))
    gradients.sizes = {str(i): 600 for i in range(20)}  # a part of 1,000 holds one of them
    n_rows = 4
    room = 4 * n_rows * 1000 / 2**30
    assert len(slabs(gradients.sizes, 1000)) == 20 > MOST_PASSES > 12_000 / 1000
    assert not fits(gradients, n_rows, room)
    gradients.sizes = {str(i): 500 for i in range(24)}
    assert fits(gradients, n_rows, room)


@pytest.mark.parametrize("n_parts", [1, 2, 7])
def test_gradients_in_parts_span_the_same(checkpoint, n_parts):
    gradients = OutputGradients(fitted(checkpoint, "full"))
    rows = torch.empty(len(MOLECULES), gradients.n_parameters)
    for positions, _, found in gradients.jacobian(MOLECULES):
        rows[positions] = found.float()
    gib = rows.numel() * 4 / 2**30 / n_parts * 1.01
    span = spanned(gradients, MOLECULES, gib, SilentProgress())
    exact = rows.double() @ rows.double().T
    assert (span.rows @ span.rows.T - exact).abs().max() < 1e-5 * exact.abs().max()
    np.testing.assert_allclose(span.predictions, gradients.predictions(MOLECULES), rtol=1e-5)
    # A direction in coordinates moves every molecule as the same direction of parameters does.
    x = torch.randn(span.rows.shape[1], 2, dtype=torch.float64)
    _, slopes = gradients.along(MOLECULES, span.directions(gradients, MOLECULES, x))
    expected = span.rows @ x
    assert (slopes.double() - expected).abs().max() < 1e-3 * expected.abs().max()


def test_a_gradient_that_is_no_number_is_refused(scratch):
    table = GradientTable(scratch, 1, 2)
    block = (torch.tensor([0]), torch.tensor([1.0]), torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValuationError, match="not finite"):
        table.fill(0, [block], 1)
