"""Fine-tuning: its numbers by hand, its schedule, early stopping, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.chem.molecules import canonical_smiles
from lipo_cli.errors import TrainingError
from lipo_cli.model.adapters import DEFAULT_LEARNING_RATE, warmup_then_decay
from lipo_cli.model.precision import is_out_of_memory
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft
from lipo_cli.training.examples import Examples, dealt, written_anew
from lipo_cli.training.finetune import FitResult, fit, learning_rate_of, rmse
from tests.fixtures.models import LABELS, SMILES, assembled_molecules, tiny_regressor

TRAIN = Examples(list(SMILES[:9]), LABELS[:9])
VALIDATION = Examples(list(SMILES[9:]), LABELS[9:])


@pytest.fixture(scope="module")
def benzenes() -> tuple[Examples, Examples]:
    """60 training and 30 validation molecules with Crippen logP."""
    smiles, labels = assembled_molecules()
    order = np.random.default_rng(0).permutation(len(smiles))
    every = Examples(smiles, labels)
    return every.take(order[:60]), every.take(order[60:90])


class Recorder:
    """Remembers what AdamW is told at each step, and lets it do its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rates: list[list[float]] = []
        self.norms: list[float] = []
        step = torch.optim.AdamW.step

        def recording(optimizer: torch.optim.AdamW, *args: object) -> object:
            groups = optimizer.param_groups
            self.rates.append([float(group["lr"]) for group in groups])
            grads = [p.grad for group in groups for p in group["params"] if p.grad is not None]
            self.norms.append(math.sqrt(sum(float(g.square().sum()) for g in grads)))
            return step(optimizer, *args)

        monkeypatch.setattr(torch.optim.AdamW, "step", recording)


class Listener:
    """Counts what is reported."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.done = 0
        self.open = 0
        self.fields: list[dict[str, float | int | str]] = []

    def start(self, name: str, total: int | None, unit: str) -> None:
        self.total, self.open = total, self.open + 1

    def advance(self, n: int = 1, **fields: float | int | str) -> None:
        self.done += n
        self.fields.append(fields)

    def finish(self) -> None:
        self.open -= 1


def outcome_by_the_rule(
    scores: list[float], patience: int, min_delta: float, epochs: int
) -> tuple[int, int, bool]:
    """Replays early stopping: epochs run, best epoch, stopped early.

    An epoch counts as progress when it beats the best so far by more than `min_delta`; after
    `patience` epochs without progress the run ends. The best epoch is the lowest score of all.
    """
    best, without = math.inf, 0
    for epoch, score in enumerate(scores, start=1):
        without = 0 if score < best - min_delta else without + 1
        best = min(best, score)
        if without >= patience and epoch < epochs:
            return epoch, 1 + int(np.argmin(scores[:epoch])), True
    return len(scores), 1 + int(np.argmin(scores)), False


def check_against_the_rule(regressor: Regressor, result: FitResult) -> None:
    settings = regressor.settings
    scores = [row["val_rmse"] for row in result.history]
    wanted = outcome_by_the_rule(scores, settings.patience, settings.min_delta, settings.epochs)
    assert (len(scores), result.best_epoch, result.stopped_early) == wanted
    assert result.best_val_rmse == min(scores)


def test_first_epoch_is_what_it_says_by_hand(tiny: Path) -> None:
    regressor = tiny_regressor(
        tiny, dropout=0.0, randomise=0.0, epochs=1, learning_rate=1e-12, batch_size=2
    )
    for module in regressor.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    standardised = regressor.predict(TRAIN.smiles)  # no label scale yet
    mean, scale = LABELS[:9].mean(), LABELS[:9].std()
    error = standardised - (TRAIN.labels - mean) / scale
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    (row,) = result.history
    assert row["train_loss"] == pytest.approx(np.mean(error**2), rel=1e-5)
    assert row["train_rmse"] == pytest.approx(scale * math.sqrt(np.mean(error**2)), rel=1e-5)
    predicted = regressor.predict(VALIDATION.smiles)
    assert row["val_rmse"] == math.sqrt(np.mean((predicted - VALIDATION.labels) ** 2))
    assert row["epoch"] == 1
    assert row["seconds"] > 0


def test_scale_is_that_of_the_training_labels_alone(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, epochs=1)
    fit(regressor, TRAIN, Examples(VALIDATION.smiles, VALIDATION.labels + 100), seed=0)
    assert float(regressor.head().label_mean) == pytest.approx(TRAIN.labels.mean(), abs=1e-6)
    assert float(regressor.head().label_scale) == pytest.approx(TRAIN.labels.std(), abs=1e-6)


def test_raw_labels_are_trained_on_as_they_are(tiny: Path) -> None:
    """The first prediction is the head's own, not the labels' mean; the loss is in raw units."""
    changes = {"standardise": False, "learning_rate": 1e-12, "epochs": 1, "averaging": 0.0}
    regressor = tiny_regressor(tiny, randomise=0.0, batch_size=9, dropout=0.0, **changes)
    before = regressor.predict(VALIDATION.smiles)
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    head = regressor.head()
    assert (float(head.label_mean), float(head.label_scale)) == (0.0, 1.0)
    np.testing.assert_allclose(regressor.predict(VALIDATION.smiles), before, atol=1e-5)
    (row,) = result.history
    assert row["train_rmse"] == pytest.approx(math.sqrt(row["train_loss"]))
    assert row["val_rmse"] == pytest.approx(rmse(before, VALIDATION.labels), abs=1e-5)
    standardised = tiny_regressor(tiny, randomise=0.0, batch_size=9, dropout=0.0,
                                  **(changes | {"standardise": True}))  # fmt: skip
    fit(standardised, TRAIN, VALIDATION, seed=0)
    shift = np.mean(standardised.predict(VALIDATION.smiles) - TRAIN.labels.mean())
    assert abs(shift) < abs(np.mean(before - TRAIN.labels.mean()))


def test_without_warm_up_the_rate_falls_in_line_from_the_first_step() -> None:
    factor = warmup_then_decay(100, 0.0)
    assert factor(0) == 1.0
    assert [factor(s) for s in (1, 50, 99)] == pytest.approx([1.0, 50 / 99, 1 / 99])


def test_labels_in_other_units_train_alike(tiny: Path) -> None:
    results = []
    for scale, shift in ((1.0, 0.0), (64.0, 512.0)):
        regressor = tiny_regressor(tiny, epochs=3)
        labels = [Examples(e.smiles, scale * e.labels + shift) for e in (TRAIN, VALIDATION)]
        fit(regressor, *labels, seed=0)
        results.append((regressor.predict(SMILES) - shift) / scale)
    np.testing.assert_allclose(results[0], results[1], atol=2e-3)


@pytest.mark.parametrize(
    ("warmup", "n_warmup"), [(0.3, 3), (0.0, 1), (0.04, 1), (0.95, 10), (0.5, 5)]
)
def test_rate_rises_in_line_and_falls_in_line(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, warmup: float, n_warmup: int
) -> None:
    recorder = Recorder(monkeypatch)
    regressor = tiny_regressor(
        tiny, epochs=5, batch_size=5, warmup=warmup, learning_rate=0.01, patience=99
    )
    fit(regressor, TRAIN, VALIDATION, seed=0)  # nine molecules: two steps an epoch
    used = [max(rates) for rates in recorder.rates]
    rising = [0.01 * (step + 1) / n_warmup for step in range(n_warmup)]
    falling = [0.01 * (10 - step) / (10 - n_warmup) for step in range(n_warmup, 10)]
    assert used == pytest.approx(rising + falling)
    assert min(used) > 0


def test_layers_keep_their_decay_while_the_rate_moves(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder(monkeypatch)
    fit(tiny_regressor(tiny, layer_decay=0.5), TRAIN, VALIDATION, seed=0)
    for rates in recorder.rates:
        found = {round(math.log2(max(rates) / rate), 6) for rate in rates}
        assert found == {0.0, 1.0, 2.0, 3.0}  # head, upper layer, lower layer, embeddings


def test_gradients_are_clipped_as_one_vector(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    fit(tiny_regressor(tiny), TRAIN, VALIDATION, seed=0)
    assert max(recorder.norms) == pytest.approx(1.0, abs=1e-4)
    assert all(norm < 1 + 1e-4 for norm in recorder.norms)


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_default_rate_is_that_of_the_method(
    tiny: Path, monkeypatch: pytest.MonkeyPatch, peft: Peft
) -> None:
    recorder = Recorder(monkeypatch)
    regressor = tiny_regressor(tiny, peft, warmup=0.0, epochs=1)
    fit(regressor, TRAIN, VALIDATION, seed=0)
    assert max(recorder.rates[0]) == DEFAULT_LEARNING_RATE[peft]
    assert learning_rate_of(tiny_regressor(tiny, peft, learning_rate=0.25)) == 0.25


@pytest.mark.parametrize("patience", [1, 3])
def test_run_that_goes_nowhere_stops_after_its_patience(tiny: Path, patience: int) -> None:
    regressor = tiny_regressor(tiny, learning_rate=1e-12, epochs=20, patience=patience)
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    assert len(result.history) == 1 + patience
    assert result.stopped_early
    check_against_the_rule(regressor, result)


def test_without_patience_a_run_that_goes_nowhere_takes_all_its_epochs(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, learning_rate=1e-12, epochs=23)
    assert regressor.settings.patience is None
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    assert len(result.history) == 23
    assert not result.stopped_early


def test_patience_that_ends_with_the_last_epoch_is_no_early_stop(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, learning_rate=1e-12, epochs=4, patience=3)
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    assert len(result.history) == 4
    assert not result.stopped_early


def test_gain_below_min_delta_is_no_progress_but_is_kept(
    tiny: Path, benzenes: tuple[Examples, Examples]
) -> None:
    regressor = tiny_regressor(tiny, epochs=20, patience=4, min_delta=50.0, learning_rate=3e-3)
    result = fit(regressor, *benzenes, seed=0)
    assert len(result.history) == 5
    assert result.best_epoch > 1, "it must have learned something to tell"
    check_against_the_rule(regressor, result)


@pytest.mark.parametrize(("patience", "min_delta", "rate"), [(1, 0.0, 0.02), (2, 0.02, 0.05)])
def test_early_stopping_follows_the_rule_on_noisy_runs(
    tiny: Path, benzenes: tuple[Examples, Examples], patience: int, min_delta: float, rate: float
) -> None:
    for seed in range(4):
        regressor = tiny_regressor(
            tiny,
            seed=seed,
            epochs=12,
            batch_size=16,
            patience=patience,
            min_delta=min_delta,
            learning_rate=rate,
        )
        check_against_the_rule(regressor, fit(regressor, *benzenes, seed=seed))


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_weights_of_the_best_epoch_come_back(
    tiny: Path, benzenes: tuple[Examples, Examples], peft: Peft
) -> None:
    n_before_the_end = 0
    for seed in range(10):
        regressor = tiny_regressor(
            tiny, peft, seed=seed, epochs=8, learning_rate=0.1, patience=9, batch_size=16
        )
        result = fit(regressor, *benzenes, seed=seed)
        found = rmse(regressor.predict(benzenes[1].smiles), benzenes[1].labels)
        assert found == result.best_val_rmse
        assert not regressor.model.training
        n_before_the_end += result.best_epoch < len(result.history)
    assert n_before_the_end, "no run had its best epoch before the last: nothing was tested"


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_frozen_weights_keep_every_bit_through_a_fit(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft)
    before = {n: p.detach().clone() for n, p in regressor.model.named_parameters()}
    fit(regressor, TRAIN, VALIDATION, seed=0)
    for name, parameter in regressor.model.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_seed_decides_every_number(tiny: Path, peft: Peft) -> None:
    runs = []
    for noise, seed in ((1, 7), (2, 7), (3, 8)):
        torch.manual_seed(noise)  # what ran before must not matter
        np.random.seed(noise)  # noqa: NPY002 - the global stream is the point
        regressor = tiny_regressor(tiny, peft, seed=0)
        result = fit(regressor, TRAIN, VALIDATION, seed=seed)
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
        runs.append((rows, regressor.predict(SMILES)))
    assert runs[0][0] == runs[1][0]
    assert np.array_equal(runs[0][1], runs[1][1])
    assert runs[0][0] != runs[2][0]
    assert not np.array_equal(runs[0][1], runs[2][1])


@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_diverged_run_names_epoch_rate_and_remedy(tiny: Path, peft: Peft) -> None:
    regressor = tiny_regressor(tiny, peft, learning_rate=1e30, warmup=0.0)
    with pytest.raises(TrainingError) as caught:
        fit(regressor, TRAIN, VALIDATION, seed=0)
    text = str(caught.value)
    assert "epoch 1" in text
    assert peft in text
    assert "1e+30" in text
    assert "--learning-rate" in text


def test_label_that_is_no_number_is_no_score(tiny: Path) -> None:
    labels = TRAIN.labels.copy()
    labels[3] = math.nan
    with pytest.raises(TrainingError, match="training loss became nan in epoch 1"):
        fit(tiny_regressor(tiny), Examples(TRAIN.smiles, labels), VALIDATION, seed=0)
    with pytest.raises(TrainingError, match="validation RMSE became nan"):
        fit(tiny_regressor(tiny), TRAIN, Examples(["C"], np.array([math.nan])), seed=0)


@pytest.mark.parametrize(("n_train", "n_validation"), [(0, 3), (1, 3), (5, 0)])
def test_too_few_molecules_are_refused(tiny: Path, n_train: int, n_validation: int) -> None:
    train = TRAIN.take(np.arange(n_train))
    validation = VALIDATION.take(np.arange(n_validation))
    with pytest.raises(TrainingError, match=f"{n_train} training and {n_validation} validation"):
        fit(tiny_regressor(tiny), train, validation, seed=0)


def test_cut_molecules_are_counted(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, max_length=12, epochs=1)
    result = fit(regressor, TRAIN, VALIDATION, seed=0)
    rows = tiny_regressor(tiny).encode(TRAIN.smiles + VALIDATION.smiles).ids
    assert result.n_truncated == sum(len(row) > 12 for row in rows) > 0
    assert result.n_unknown == 0


def test_molecules_the_model_does_not_know_are_counted(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, epochs=1, randomise=1.0)
    train = Examples([*TRAIN.smiles[:7], "C[SiH3]", "C[Se]C"], TRAIN.labels)
    validation = Examples(["C[Te]C", *VALIDATION.smiles[1:]], VALIDATION.labels)
    result = fit(regressor, train, validation, seed=0)
    assert (result.n_truncated, result.n_unknown) == (0, 3)


def run_that_fails(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, error: Exception, file: Path
) -> TrainingError:
    """Returns what a run says that meets this error in the step after its first epoch."""
    regressor = tiny_regressor(tiny)
    step, n_steps = torch.optim.AdamW.step, 0

    def failing(optimizer: torch.optim.AdamW, *args: object) -> object:
        nonlocal n_steps
        n_steps += 1
        if n_steps > 3:
            raise error
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", failing)
    with pytest.raises(TrainingError) as caught:
        fit(regressor, TRAIN, VALIDATION, seed=0, resume_file=file)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
    ids=["cuda", "cpu", "cpu linux", "cublas", "python"],
)
def test_memory_that_ran_out_is_one_line_with_the_remedy(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    found = run_that_fails(monkeypatch, tiny, error, tmp_path / "state.pt")
    assert "--batch-size" in str(found)
    assert "batches of 4" in str(found)
    assert "\n" not in str(found)
    assert found.__cause__ is error
    assert (tmp_path / "state.pt").is_file(), "the epochs before were sound"


def test_memory_that_really_runs_out_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_other_errors_stay_what_they_are(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        fit(tiny_regressor(tiny), TRAIN, VALIDATION, seed=0)


def test_state_of_a_diverged_run_is_deleted(tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    regressor = tiny_regressor(tiny)

    def spoil(row: dict[str, float]) -> None:
        assert file.is_file()
        regressor.head().out_proj.bias.data.fill_(math.nan)

    with pytest.raises(TrainingError, match="training loss became nan in epoch 2"):
        fit(regressor, TRAIN, VALIDATION, seed=0, resume_file=file, on_epoch=spoil)
    assert not file.exists()
    labels = np.full(len(TRAIN), math.nan)
    with pytest.raises(TrainingError, match="epoch 1"):  # nothing to delete is no second error
        fit(
            tiny_regressor(tiny),
            Examples(TRAIN.smiles, labels),
            VALIDATION,
            seed=0,
            resume_file=file,
        )


def test_every_batch_and_epoch_is_reported(tiny: Path) -> None:
    listener = Listener()
    rows: list[dict[str, float]] = []
    regressor = tiny_regressor(tiny, epochs=4)
    result = fit(regressor, TRAIN, VALIDATION, seed=0, progress=listener, on_epoch=rows.append)
    assert listener.total == listener.done == 4 * 3
    assert listener.open == 0
    assert rows == result.history
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    told = [fields["val_rmse"] for fields in listener.fields if "val_rmse" in fields]
    assert told == [row["val_rmse"] for row in rows]
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in rows))


def test_an_epoch_of_a_given_size_draws_so_many_rows_anew(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    encode = Regressor.encode

    def remembering(regressor: Regressor, smiles: list[str]) -> object:
        if regressor.model.training:
            seen.append(list(smiles))
        return encode(regressor, smiles)

    monkeypatch.setattr(Regressor, "encode", remembering)
    regressor = tiny_regressor(tiny, epochs=12, batch_size=2, randomise=0.0)
    regressor.model.train()
    listener = Listener()
    fit(regressor, TRAIN, VALIDATION, seed=0, epoch_size=5, progress=listener)
    assert listener.total == listener.done == 12 * 3
    epochs = [smiles for smiles in seen if len(smiles) == 5]
    assert len(epochs) >= 11  # the first may follow an evaluation
    assert len({frozenset(rows) for rows in epochs}) > 1
    assert set().union(*epochs) == set(TRAIN.smiles)


@pytest.mark.parametrize("n", [1, 5, 8])
def test_rows_are_dealt_out_in_turn(n: int) -> None:
    counts = dict.fromkeys(TRAIN.smiles, 0)
    labels = dict(zip(TRAIN.smiles, TRAIN.labels, strict=True))
    epochs = []
    for epoch in range(20):
        rows = dealt(TRAIN, n, 3, epoch)
        assert len(rows) == n
        assert [labels[text] for text in rows.smiles] == rows.labels.tolist()
        for text in rows.smiles:
            counts[text] += 1
        assert max(counts.values()) - min(counts.values()) <= 1
        epochs.append(rows.smiles)
    again = [dealt(TRAIN, n, 3, epoch).smiles for epoch in range(20)]
    assert again == epochs
    assert [dealt(TRAIN, n, 4, epoch).smiles for epoch in range(20)] != epochs
    assert dealt(TRAIN, len(TRAIN), 3, 7) is TRAIN


def test_an_epoch_that_may_take_more_rows_than_there_are_takes_all(tiny: Path) -> None:
    def outcome(size: int | None) -> list[float]:
        result = fit(tiny_regressor(tiny), TRAIN, VALIDATION, seed=3, epoch_size=size)
        return [row["train_loss"] for row in result.history]

    assert outcome(None) == outcome(len(TRAIN)) == outcome(1_000)
    assert outcome(None) != outcome(len(TRAIN) - 1)


def test_listener_is_closed_when_the_run_is_stopped(tiny: Path) -> None:
    listener = Listener()

    def stop(_: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_regressor(tiny), TRAIN, VALIDATION, seed=0, progress=listener, on_epoch=stop)
    assert listener.open == 0


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_molecules_is_written_anew_and_stays_itself(share: float) -> None:
    smiles = [canonical_smiles(text) or "" for text in assembled_molecules()[0]]
    written = written_anew(smiles, share, np.random.default_rng(0))
    assert [canonical_smiles(text) for text in written] == smiles
    changed = np.mean([a != b for a, b in zip(smiles, written, strict=True)])
    # A random SMILES is the canonical one now and then; binomial spread: 0.03.
    assert 0.9 * share - 0.1 <= changed <= share + (0.1 if 0 < share < 1 else 0)
    assert written == written_anew(smiles, share, np.random.default_rng(0))


def test_epochs_see_other_spellings(tiny: Path) -> None:
    first, second = (
        written_anew(TRAIN.smiles, 1.0, np.random.default_rng([0, epoch])) for epoch in (0, 1)
    )
    assert first != second


def test_every_epoch_draws_its_own_dropout(tiny: Path) -> None:
    regressor = tiny_regressor(tiny, learning_rate=1e-12, dropout=0.3, randomise=0.0)
    losses = [row["train_loss"] for row in fit(regressor, TRAIN, VALIDATION, seed=0).history]
    assert np.abs(np.subtract.outer(losses, losses))[np.triu_indices(3, 1)].min() > 1e-4


def test_examples_keep_labels_with_their_molecules() -> None:
    taken = TRAIN.take(np.array([4, 0]))
    assert taken.smiles == [SMILES[4], SMILES[0]]
    assert taken.labels.tolist() == [LABELS[4], LABELS[0]]
    joined = taken.joined(VALIDATION)
    assert len(joined) == 5
    assert joined.smiles == [*taken.smiles, *VALIDATION.smiles]
    assert joined.labels.tolist() == [*taken.labels, *VALIDATION.labels]
    with pytest.raises(ValueError, match="2 SMILES, 3 labels"):
        Examples(["C", "CC"], np.zeros(3))


def test_rmse_by_hand() -> None:
    assert rmse(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 2.0])) == pytest.approx(
        math.sqrt(5 / 3)
    )


def shares_of_the_mean_predictor(regressor: Regressor) -> tuple[float, float]:
    """Fits on 160 molecules; returns validation RMSE and last loss as shares of a constant's."""
    smiles, labels = assembled_molecules()
    order = np.random.default_rng(1).permutation(len(smiles))
    every = Examples(smiles, labels)
    train, validation = every.take(order[:160]), every.take(order[160:])
    result = fit(regressor, train, validation, seed=0)
    by_the_mean = rmse(np.full(len(validation), train.labels.mean()), validation.labels)
    # The loss is standardised: a constant has 1.
    return result.best_val_rmse / by_the_mean, result.history[-1]["train_loss"]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("peft", PEFT_METHODS)
def test_each_method_learns_at_its_default_rate(peft: Peft) -> None:
    regressor = tiny_regressor("small", peft, epochs=3, batch_size=16)
    share, loss = shares_of_the_mean_predictor(regressor)
    assert share < 0.5
    assert loss < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("peft", ["full", "bitfit"])
def test_rate_that_hardly_trains_would_be_noticed(peft: Peft) -> None:
    regressor = tiny_regressor("small", peft, epochs=1, batch_size=16, learning_rate=1e-7)
    share, loss = shares_of_the_mean_predictor(regressor)
    assert share > 0.9
    assert loss > 0.8


def test_a_random_smiles_that_is_not_read_whole_gives_way_to_the_given_one() -> None:
    rng = np.random.default_rng(0)
    written = written_anew(TRAIN.smiles, 1.0, rng, lambda text: text in TRAIN.smiles)
    assert written == TRAIN.smiles
