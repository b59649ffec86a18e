from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from lipo_cli.errors import DataError, Interrupted, TrackingError
from lipo_cli.settings import FinetuneSettings
from lipo_cli.tracking.handle import RunHandle
from lipo_cli.tracking.runs import find_children, find_runs, read_run, start_run
from lipo_cli.tracking.store import Store


def status(store: Store, run_id: str) -> str:
    return str(store.client().get_run(run_id).info.status)


def test_run_ends_finished(store: Store) -> None:
    with start_run(store, "lipo", "a name") as run:
        assert status(store, run.run_id) == "RUNNING"
    found = read_run(store, run.run_id)
    assert found.status == "FINISHED"
    assert found.name == "a name"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), "KILLED"),
        (Interrupted(15), "KILLED"),
        (SystemExit(1), "KILLED"),
        (ValueError("bad value\nsecond line"), "FAILED"),
        (DataError("broken SMILES", where="a.csv:7"), "FAILED"),
        (MemoryError(), "FAILED"),
    ],
)
def test_every_way_out_leaves_a_final_state(
    store: Store, error: BaseException, expected: str
) -> None:
    with pytest.raises(type(error)) as caught, start_run(store, "lipo", "x") as run:
        raise error
    assert caught.value is error
    assert status(store, run.run_id) == expected
    tag = read_run(store, run.run_id).tags.get("error")
    assert tag == {"KILLED": None}.get(expected, tag)
    if expected == "FAILED":
        assert tag is not None
        assert "\n" not in tag


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("disk full")])
def test_what_was_finished_stays_so_when_it_is_taken_up_and_breaks(
    store: Store, error: BaseException
) -> None:
    with start_run(store, "lipo", "x") as first:
        first.metrics({"rmse": 0.5})
    with pytest.raises(type(error)), start_run(store, "lipo", "x", run_id=first.run_id):
        raise error
    found = read_run(store, first.run_id)
    assert (found.status, found.metrics["rmse"]) == ("FINISHED", 0.5)
    assert "error" not in found.tags


def test_what_was_partly_written_anew_is_not_called_finished(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text("{}")
    with start_run(store, "lipo", "x") as first:
        first.file(file)
    file.write_text('{"more": 1}')
    again = start_run(store, "lipo", "x", run_id=first.run_id)
    with pytest.raises(KeyboardInterrupt), again as run:
        interrupted_after(run, file)
    assert status(store, first.run_id) == "KILLED"


def interrupted_after(run: RunHandle, file: Path) -> None:
    run.file(file)
    raise KeyboardInterrupt


def test_error_that_an_interruption_caused_is_a_kill(store: Store) -> None:
    wrapped = RuntimeError("a library wrapped it")
    wrapped.__cause__ = Interrupted(15)
    with pytest.raises(RuntimeError), start_run(store, "lipo", "x") as run:
        raise wrapped
    assert status(store, run.run_id) == "KILLED"


def test_abandoned_generator_closes_its_run(store: Store) -> None:
    ids = []

    def work() -> object:
        with start_run(store, "lipo", "x") as run:
            ids.append(run.run_id)
            yield 1

    generator = work()
    next(generator)  # type: ignore[call-overload]
    generator.close()  # type: ignore[attr-defined]
    assert status(store, ids[0]) == "KILLED"


def test_failure_to_close_does_not_hide_the_real_error(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
    with pytest.raises(ValueError, match="the real one") as caught, start_run(store, "lipo", "x"):
        raise ValueError("the real one")
    assert "disk full" in caught.value.__notes__[0]


def test_run_says_what_made_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/lipo", "compare", "--peft", "lora", "a b"])
    settings = FinetuneSettings(peft="lora", seed=3)
    tags = {"lipo.kind": "finetune", "lipo.fingerprint": settings.fingerprint()}
    with start_run(store, "lipo", "x", tags=tags, settings=settings) as run:
        pass
    found = read_run(store, run.run_id)
    assert found.tags["lipo.command"] == "lipo compare --peft lora 'a b'"
    assert found.tags["lipo.version"]
    assert found.tags["lipo.kind"] == "finetune"
    assert found.tags["lipo.fingerprint"] == settings.fingerprint()
    assert {"lipo.pid", "lipo.host", "lipo.process_start"} <= found.tags.keys()
    assert found.params == settings.flat()


def test_nested_runs_are_found_under_their_parent(store: Store) -> None:
    with start_run(store, "lipo", "parent") as parent:
        for name in ("one", "two"):
            with start_run(store, "lipo", name, parent_run_id=parent.run_id):
                pass
    names = {run.name for run in find_children(store, "lipo", parent.run_id)}
    assert names == {"one", "two"}
    assert len(find_runs(store, "lipo")) == 3
    assert find_runs(store, "no such experiment") == []


def test_a_run_that_is_taken_up_bears_the_name_of_who_began_it(store: Store) -> None:
    """Its parameters cannot change either: selections of the same points share a run."""
    began = {"selection": "random:k=24", "base": "a"}
    with pytest.raises(KeyError), start_run(store, "lipo", "x", tags=began) as first:
        raise KeyError
    with start_run(store, "lipo", "x", run_id=first.run_id, tags={"selection": "all", "base": "b"}):
        pass
    tags = read_run(store, first.run_id).tags
    assert (tags["selection"], tags["base"]) == ("random:k=24", "b")


def test_history_comes_back_as_it_went_in(store: Store) -> None:
    rows = [{"epoch": e, "train_loss": 1 / e, "val_rmse": 2 / e} for e in range(1, 601)]
    with start_run(store, "lipo", "x") as run:
        run.history(rows)
    assert read_run(store, run.run_id).epochs(["train_loss", "val_rmse"]) == rows


def test_history_is_one_write(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    calls = []
    original: Callable[..., None] = MlflowClient.log_batch

    def counted(self: MlflowClient, *args: object, **kwargs: object) -> None:
        calls.append(1)
        original(self, *args, **kwargs)

    with start_run(store, "lipo", "x") as run:
        monkeypatch.setattr(MlflowClient, "log_batch", counted)
        run.history([{"epoch": e, "a": 1.0, "b": 2.0} for e in range(400)])
    assert len(calls) == 1


def test_history_without_epoch_is_refused(store: Store) -> None:
    with pytest.raises(TrackingError, match="no epoch"), start_run(store, "lipo", "x") as run:
        run.history([{"val_rmse": 0.7}])


def test_nan_is_never_a_score(store: Store) -> None:
    with start_run(store, "lipo", "x") as run:
        run.metrics({"val_rmse": 0.7, "test_r2": math.nan, "test_mae": math.inf, "later": None})
        run.history([{"epoch": 1, "loss": math.nan, "val_rmse": 0.8}])
    found = read_run(store, run.run_id)
    assert found.metrics == {"val_rmse": 0.8}
    assert found.tags["lipo.not_finite"] == "test_mae, test_r2"


def test_table_figure_and_file_come_back(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"smiles": ["C", "CC"], "value": [0.1, -0.25]})
    figure = tmp_path / "curve.png"
    figure.write_bytes(b"png")
    with start_run(store, "lipo", "x") as run:
        run.table(frame, "values")
        run.figure(figure)
        run.file(figure, "extra")
    found = read_run(store, run.run_id)
    pd.testing.assert_frame_equal(pd.read_csv(found.artifact("tables/values.csv")), frame)
    parquet = pd.read_parquet(found.artifact("tables/values.parquet"))
    assert parquet["value"].tolist() == [0.1, -0.25]
    assert found.artifact("figures/curve.png").read_bytes() == b"png"
    assert found.artifact("extra/curve.png").read_bytes() == b"png"
    with pytest.raises(TrackingError, match="has no file tables/other"):
        found.artifact("tables/other.csv")


def test_missing_file_is_named(store: Store, tmp_path: Path) -> None:
    with (
        pytest.raises(TrackingError, match=r"nothing here\.png"),
        start_run(store, "lipo", "x") as run,
    ):
        run.file(tmp_path / "nothing here.png")


def test_datasets_are_inputs_with_their_checksum(store: Store) -> None:
    frame = pd.DataFrame({"smiles": ["C", "CC", "CCC"], "label": [1.0, 2.0, 3.0]})
    with start_run(store, "lipo", "x") as run:
        run.dataset(frame[:2], "demo", "demo.csv", "train", "ab" * 32)
        run.dataset(frame[2:], "demo", "demo.csv", "validation", "ab" * 32)
    inputs = store.client().get_run(run.run_id).inputs.dataset_inputs
    tags = [{tag.key: tag.value for tag in entry.tags} for entry in inputs]
    assert {t["mlflow.data.context"] for t in tags} == {"train", "validation"}
    assert {t["sha256"] for t in tags} == {"ab" * 32}
    assert {entry.dataset.name for entry in inputs} == {"demo"}


def test_killed_run_is_taken_up_again(store: Store) -> None:
    settings = FinetuneSettings()
    rows = [{"epoch": e, "val_rmse": 1.0 / (e + 1)} for e in range(4)]
    ids = []

    def killed() -> None:
        with start_run(store, "lipo", "x", settings=settings) as first:
            ids.append(first.run_id)
            first.history(rows[:2])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    (run_id,) = ids
    with start_run(store, "lipo", "x", settings=settings, run_id=run_id) as second:
        assert status(store, run_id) == "RUNNING"
        second.history(rows)
    assert second.run_id == run_id
    assert status(store, run_id) == "FINISHED"
    assert read_run(store, run_id).epochs(["val_rmse"]) == rows
    assert len(store.client().get_metric_history(run_id, "val_rmse")) == 4


def test_resuming_with_another_setting_is_refused(store: Store) -> None:
    with start_run(store, "lipo", "x", settings=FinetuneSettings(seed=1)) as first:
        pass
    with (
        pytest.raises(TrackingError, match="the run holds seed = 1, now it is 2"),
        start_run(store, "lipo", "x", settings=FinetuneSettings(seed=2), run_id=first.run_id),
    ):
        pass


def test_failed_run_loses_its_error_when_it_is_taken_up(store: Store) -> None:
    with pytest.raises(ValueError, match="bad"), start_run(store, "lipo", "x") as run:
        raise ValueError("bad")
    with start_run(store, "lipo", "x", run_id=run.run_id):
        pass
    assert "error" not in read_run(store, run.run_id).tags


@pytest.mark.parametrize("name", ["..", "a/../../b", "lipo compare: é/2", "x" * 200])
def test_odd_experiment_names_stay_inside_the_store(store: Store, name: str) -> None:
    with start_run(store, name, "x") as run:
        run.table(pd.DataFrame({"a": [1]}), "t")
    assert store.artifacts is not None
    path = read_run(store, run.run_id).artifact("tables/t.csv").resolve()
    assert path.is_relative_to(store.artifacts)


def test_similar_experiment_names_do_not_share_a_folder(store: Store) -> None:
    for name in ("a b", "a/b", "a:b"):
        with start_run(store, name, "x"):
            pass
    places = {e.artifact_location for e in store.client().search_experiments()}
    assert len(places) == 4


def test_deleted_experiment_is_told_with_the_way_back(store: Store) -> None:
    with start_run(store, "lipo", "x") as run:
        pass
    store.client().delete_experiment(run.experiment_id)
    with (
        pytest.raises(TrackingError, match=r"was deleted.*mlflow experiments restore"),
        start_run(store, "lipo", "y"),
    ):
        pass


def test_unknown_run_is_one_line(store: Store) -> None:
    with pytest.raises(TrackingError, match="no-such-run"):
        read_run(store, "no-such-run")
