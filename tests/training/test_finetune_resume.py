"""A run resumed after any epoch equals one that was never stopped, bit for bit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import FitResult, fit
from lipo_cli.training.resume import TrainingState, read_state, write_state
from tests.fixtures.models import LABELS, SMILES, tiny_regressor

TRAIN = Examples(list(SMILES[:9]), LABELS[:9])
VALIDATION = Examples(list(SMILES[9:]), LABELS[9:])
EPOCHS = 4


class Stopped(Exception):  # noqa: N818 - it is no error
    """What a killed run looks like from inside."""


def stop_after(epoch: int) -> Callable[[dict[str, float]], None]:
    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] >= epoch:
            raise Stopped

    return on_epoch


def run(regressor: Regressor, file: Path | None = None, stop: int | None = None) -> FitResult:
    on_epoch = None if stop is None else stop_after(stop)
    return fit(regressor, TRAIN, VALIDATION, seed=3, resume_file=file, on_epoch=on_epoch)


def numbers(regressor: Regressor, result: FitResult) -> tuple[object, ...]:
    """Returns all that must be equal, the time spent left out."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in result.history]
    weights = {name: tensor.numpy().tobytes() for name, tensor in regressor.copy_state().items()}
    return rows, weights, result.best_epoch, result.best_val_rmse, result.stopped_early


@pytest.mark.parametrize("peft", PEFT_METHODS)
@pytest.mark.parametrize("stop", range(1, EPOCHS + 1))
def test_resumed_run_equals_an_uninterrupted_one(
    tiny: Path, tmp_path: Path, peft: Peft, stop: int
) -> None:
    whole = tiny_regressor(tiny, peft, epochs=EPOCHS)
    wanted = numbers(whole, run(whole))
    with pytest.raises(Stopped):
        run(tiny_regressor(tiny, peft, epochs=EPOCHS), tmp_path / "state.pt", stop)
    torch.manual_seed(12345)  # another process, another state of the generators
    resumed = tiny_regressor(tiny, peft, epochs=EPOCHS)
    assert numbers(resumed, run(resumed, tmp_path / "state.pt")) == wanted


def test_resumed_run_of_short_epochs_deals_on_where_it_was(tiny: Path, tmp_path: Path) -> None:
    def own(file: Path | None = None, stop: int | None = None) -> tuple[object, ...]:
        regressor = tiny_regressor(tiny, epochs=EPOCHS)
        on_epoch = None if stop is None else stop_after(stop)
        options = {"resume_file": file, "on_epoch": on_epoch, "epoch_size": 5}
        return numbers(regressor, fit(regressor, TRAIN, VALIDATION, seed=3, **options))

    with pytest.raises(Stopped):
        own(tmp_path / "state.pt", 1)
    assert own(tmp_path / "state.pt") == own()
    # A state of whole epochs is another run's.
    with pytest.raises(Stopped):
        run(tiny_regressor(tiny, epochs=EPOCHS), tmp_path / "whole.pt", 1)
    assert own(tmp_path / "whole.pt") == own()


def test_run_stopped_after_each_epoch_equals_an_uninterrupted_one(
    tiny: Path, tmp_path: Path
) -> None:
    whole = tiny_regressor(tiny, epochs=EPOCHS)
    wanted = numbers(whole, run(whole))
    for stop in range(1, EPOCHS + 1):
        with pytest.raises(Stopped):
            run(tiny_regressor(tiny, epochs=EPOCHS), tmp_path / "state.pt", stop)
    last = tiny_regressor(tiny, epochs=EPOCHS)
    assert numbers(last, run(last, tmp_path / "state.pt")) == wanted


def test_run_that_ran_out_of_patience_does_not_go_on(tiny: Path, tmp_path: Path) -> None:
    changes = {"epochs": 9, "patience": 2, "learning_rate": 1e-12}
    first = tiny_regressor(tiny, **changes)
    wanted = numbers(first, run(first, tmp_path / "state.pt"))
    again = tiny_regressor(tiny, **changes)
    result = run(again, tmp_path / "state.pt", stop=1)  # would raise, were an epoch run
    assert numbers(again, result) == wanted
    assert result.stopped_early


def test_time_is_summed_over_the_parts(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        run(tiny_regressor(tiny, epochs=EPOCHS), tmp_path / "state.pt", 2)
    result = run(tiny_regressor(tiny, epochs=EPOCHS), tmp_path / "state.pt")
    assert result.seconds == pytest.approx(sum(row["seconds"] for row in result.history))


def test_nothing_partial_stays_beside_the_state(tiny: Path, tmp_path: Path) -> None:
    run(tiny_regressor(tiny), tmp_path / "deep" / "state.pt")
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["state.pt"]


@pytest.mark.parametrize(
    "damage",
    ["cut", "empty", "text", "flipped", "zeros", "other", "list", "no weights", "pickle"],
)
def test_damaged_state_costs_nothing_but_its_work(tiny: Path, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "state.pt"
    whole = tiny_regressor(tiny, epochs=EPOCHS)
    wanted = numbers(whole, run(whole))
    with pytest.raises(Stopped):
        run(tiny_regressor(tiny, epochs=EPOCHS), file, 2)
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "text":
        file.write_text("not a state", encoding="utf-8")
    elif damage == "flipped":
        middle = len(content) // 2
        file.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    elif damage == "zeros":
        file.write_bytes(bytes(len(content)))
    elif damage == "other":
        torch.save({"some": "thing"}, file)
    elif damage == "list":
        torch.save([1, 2], file)
    elif damage == "no weights":
        torch.save({"epoch": 2}, file)
    else:
        file.write_bytes(pickle.dumps({"epoch": 2}))
    regressor = tiny_regressor(tiny, epochs=EPOCHS)
    assert numbers(regressor, run(regressor, file)) == wanted


@pytest.fixture(scope="module")
def state_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("state") / "state.pt"
    write_state(file, TrainingState(key="k", epoch=1, weights={"w": torch.arange(40.0)}))
    return file.read_bytes()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_is_an_error(state_bytes: bytes, tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "state.pt"
    content = bytearray(state_bytes)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    file.write_bytes(bytes(content[:kept]))
    found = read_state(file, "k")
    if found is not None:
        assert found.weights is not None
        assert torch.equal(found.weights["w"], torch.arange(40.0)), "damage must not pass as data"


def test_state_comes_back_as_it_was(tmp_path: Path) -> None:
    state = TrainingState(
        key="k",
        epoch=3,
        best_epoch=2,
        best_val_rmse=0.5,
        patience_from=1,
        seconds=1.5,
        history=[{"epoch": 1.0}],
        weights={"w": torch.ones(2)},
        best_weights={"w": torch.zeros(2)},
    )
    write_state(tmp_path / "s.pt", state)
    found = read_state(tmp_path / "s.pt", "k")
    assert found is not None
    assert (found.epoch, found.best_epoch, found.patience_from) == (3, 2, 1)
    assert (found.best_val_rmse, found.seconds, found.history) == (0.5, 1.5, [{"epoch": 1.0}])
    assert read_state(tmp_path / "nowhere.pt", "k") is None
    assert read_state(tmp_path / "s.pt", "another run") is None


class Bomb:
    """Would write a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.target,)


def test_state_file_runs_no_code(tmp_path: Path) -> None:
    torch.save({"key": "k", "weights": Bomb(tmp_path / "hit")}, tmp_path / "s.pt")
    assert read_state(tmp_path / "s.pt", "k") is None
    assert not (tmp_path / "hit").exists()


@pytest.mark.parametrize(
    "what", ["seed", "rate", "epochs", "method", "rank", "train", "validation", "base"]
)
def test_state_of_another_run_is_not_taken_for_ones_own(
    tiny: Path, tmp_path: Path, what: str
) -> None:
    file = tmp_path / "state.pt"

    def own() -> Regressor:
        return tiny_regressor(tiny, "lora", epochs=EPOCHS)

    regressor, train, validation, seed = own(), TRAIN, VALIDATION, 3
    if what == "seed":
        seed = 4
    elif what == "rate":
        regressor = tiny_regressor(tiny, "lora", epochs=EPOCHS, learning_rate=0.5)
    elif what == "epochs":
        regressor = tiny_regressor(tiny, "lora", epochs=EPOCHS + 3)
    elif what == "method":
        regressor = tiny_regressor(tiny, "ia3", epochs=EPOCHS)
    elif what == "rank":
        regressor = tiny_regressor(tiny, "lora", epochs=EPOCHS, lora_rank=2)
    elif what == "train":
        train = TRAIN.take(np.arange(8))
    elif what == "validation":
        validation = Examples(VALIDATION.smiles, VALIDATION.labels + 0.5)
    else:
        regressor.base = {**regressor.base, "fingerprint": "another"}
    with pytest.raises(Stopped):
        fit(regressor, train, validation, seed=seed, resume_file=file, on_epoch=stop_after(2))
    whole, resumed = own(), own()
    wanted = numbers(whole, run(whole))
    assert numbers(resumed, run(resumed, file)) == wanted
