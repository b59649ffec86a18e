"""The comparison's ledger: children, runs taken up again, and what is found instead of made."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lipo_cli.errors import ModelError, TrackingError
from lipo_cli.settings import TsdsSettings
from lipo_cli.tracking import found as found_module
from lipo_cli.tracking.found import PARENT_TAG, FoundRun, find_children, find_runs, read_run
from lipo_cli.tracking.ledger import REUSED_TAG, MlflowLedger
from lipo_cli.tracking.owner import this_process
from lipo_cli.tracking.store import Store

SETTINGS = TsdsSettings()

RACE = """
import sys, time
from pathlib import Path
from lipo_cli.settings import TsdsSettings
from lipo_cli.tracking import ledger as module
from lipo_cli.tracking.ledger import MlflowLedger
from lipo_cli.tracking.store import open_store

def slowly(*arguments, find=module.find_unfinished):
    found = find(*arguments)
    time.sleep(2)  # long enough for the other process to look before this one has taken it up
    return found

module.find_unfinished = slowly
ledger = MlflowLedger(open_store(Path(sys.argv[1])), "lipo")
print("ready", flush=True)
sys.stdin.readline()
with ledger.record("cell", "x", "f", TsdsSettings(), {}) as run:
    print(run.run_id, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def ledger(store: Store) -> MlflowLedger:
    return MlflowLedger(store, "lipo")


def write(ledger: MlflowLedger, fingerprint: str, kind: str = "cell") -> str:
    """Makes a record with a file and ends it well."""
    with ledger.record(kind, fingerprint, fingerprint, SETTINGS, {"seed": 3}) as run:
        run.table(pd.DataFrame({"a": [1]}), "values")
    return run.run_id


def kill(ledger: MlflowLedger, fingerprint: str) -> str:
    """Makes a record that Ctrl-C ends."""
    with (
        pytest.raises(KeyboardInterrupt),
        ledger.record("cell", fingerprint, fingerprint, SETTINGS, {}) as run,
    ):
        raise KeyboardInterrupt
    assert read_run(ledger.store, run.run_id).status == "KILLED"
    return run.run_id


def abandon(ledger: MlflowLedger, fingerprint: str) -> str:
    """Makes a run that says RUNNING and whose process is gone."""
    run_id = write(ledger, fingerprint)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    client = ledger.store.client()
    for key, value in replace(this_process(), pid=child.pid).tags().items():
        client.set_tag(run_id, key, value)
    client.update_run(run_id, status="RUNNING")
    return run_id


def runs_of(ledger: MlflowLedger) -> list[FoundRun]:
    return find_runs(ledger.store, ledger.experiment)


def test_a_record_bears_its_kind_fingerprint_tags_and_settings(ledger: MlflowLedger) -> None:
    found = read_run(ledger.store, write(ledger, "f"))
    assert found.status == "FINISHED"
    assert (found.tags["lipo.kind"], found.tags["lipo.fingerprint"]) == ("cell", "f")
    assert found.tags["seed"] == "3"
    assert found.params == SETTINGS.flat()
    assert PARENT_TAG not in found.tags


def test_a_record_inside_another_is_its_child(ledger: MlflowLedger) -> None:
    with ledger.record("comparison", "c", "c", SETTINGS, {}) as parent:
        children = [write(ledger, "a"), write(ledger, "b")]
    after = write(ledger, "d")
    found = find_children(ledger.store, "lipo", parent.run_id)
    assert {run.run_id for run in found} == set(children)
    assert PARENT_TAG not in read_run(ledger.store, after).tags


def test_a_child_that_fails_leaves_the_parent_open(ledger: MlflowLedger) -> None:
    with ledger.record("comparison", "c", "c", SETTINGS, {}) as parent:
        with (
            pytest.raises(ValueError, match="diverged"),
            ledger.record("cell", "a", "a", SETTINGS, {}) as child,
        ):
            raise ValueError("diverged")
        assert read_run(ledger.store, child.run_id).status == "FAILED"
        sibling = write(ledger, "b")
    assert read_run(ledger.store, sibling).tags[PARENT_TAG] == parent.run_id
    assert read_run(ledger.store, parent.run_id).status == "FINISHED"


def test_a_killed_run_is_taken_up_under_its_old_name(ledger: MlflowLedger) -> None:
    killed = kill(ledger, "f")
    assert ledger.find("f") is None
    assert write(ledger, "f") == killed
    assert [run.status for run in runs_of(ledger)] == ["FINISHED"]


def test_a_killed_run_is_not_taken_up_for_another_fingerprint(ledger: MlflowLedger) -> None:
    assert write(ledger, "g") != kill(ledger, "f")


def test_a_run_of_a_dead_process_is_taken_up(ledger: MlflowLedger) -> None:
    dead = abandon(ledger, "f")
    with ledger.record("cell", "f", "f", SETTINGS, {}) as run:
        assert run.run_id == dead
        tags = read_run(ledger.store, dead).tags
        assert {key: tags[key] for key in this_process().tags()} == this_process().tags()
    assert read_run(ledger.store, dead).status == "FINISHED"


def test_a_run_of_a_live_process_is_left_to_it(ledger: MlflowLedger) -> None:
    with ledger.record("cell", "f", "f", SETTINGS, {}) as first:
        second = write(MlflowLedger(ledger.store, "lipo"), "f")
        assert second != first.run_id
        assert read_run(ledger.store, first.run_id).status == "RUNNING"


def test_a_finished_comparison_is_opened_again_and_not_doubled(ledger: MlflowLedger) -> None:
    first = write(ledger, "c", "comparison")
    assert write(ledger, "c", "comparison") == first
    assert len(runs_of(ledger)) == 1


def test_the_lock_is_free_while_the_record_is_open(ledger: MlflowLedger) -> None:
    with ledger.record("comparison", "c", "c", SETTINGS, {}), ledger.store.locked():
        pass


def test_of_two_processes_one_takes_a_killed_run_up(ledger: MlflowLedger, tmp_path: Path) -> None:
    killed = kill(ledger, "f")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, str(ledger.store.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        for _ in range(2)
    ]
    try:
        pipes = [(racer.stdin, racer.stdout) for racer in racers]
        assert all(answers is not None and answers.readline() for _, answers in pipes)
        for commands, _ in pipes:
            assert commands is not None
            commands.write("go\n")
            commands.flush()
        taken = [answers.readline().strip() for _, answers in pipes if answers is not None]
    finally:
        for racer in racers:
            racer.communicate("done\n", timeout=120)
    assert [racer.returncode for racer in racers] == [0, 0]
    assert taken.count(killed) == 1
    assert len(set(taken)) == 2
    assert {run.run_id: run.status for run in runs_of(ledger)} == dict.fromkeys(taken, "FINISHED")


def test_find_passes_over_runs_that_are_not_whole(ledger: MlflowLedger) -> None:
    assert ledger.find("f") is None
    kill(ledger, "f")
    assert ledger.find("f") is None
    run_id = write(ledger, "f")
    found = ledger.find("f")
    assert found is not None
    assert found.run_id == run_id
    found.artifact("tables/values.csv").unlink()
    assert ledger.find("f") is None


def test_find_looks_in_its_own_experiment_first_then_in_all(ledger: MlflowLedger) -> None:
    other = MlflowLedger(ledger.store, "other", anywhere=True)
    elsewhere = write(ledger, "f")
    assert MlflowLedger(ledger.store, "other").find("f") is None  # unless it was asked to
    found = other.find("f")
    assert found is not None
    assert found.run_id == elsewhere
    own = write(other, "f")
    write(ledger, "f")  # newer, but elsewhere
    found = other.find("f")
    assert found is not None
    assert found.run_id == own
    assert other.find("g") is None


def test_a_run_elsewhere_that_is_not_whole_is_passed_over(ledger: MlflowLedger) -> None:
    kill(ledger, "f")
    broken = read_run(ledger.store, write(ledger, "g"))
    broken.artifact("tables/values.csv").unlink()
    other = MlflowLedger(ledger.store, "other", anywhere=True)
    assert other.find("f") is None
    assert other.find("g") is None


def test_all_pages_of_experiments_are_looked_through(
    ledger: MlflowLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = write(ledger, "f")
    for i in range(5):
        write(MlflowLedger(ledger.store, f"filler {i}"), f"other {i}")
    monkeypatch.setattr(found_module, "_PAGE", 2)
    found = MlflowLedger(ledger.store, "asking", anywhere=True).find("f")
    assert found is not None
    assert found.run_id == run_id


def test_a_record_takes_up_no_run_of_another_experiment(ledger: MlflowLedger) -> None:
    killed = kill(ledger, "f")
    assert write(MlflowLedger(ledger.store, "other", anywhere=True), "f") != killed


def test_a_comparison_names_the_finished_runs_that_it_used_again(ledger: MlflowLedger) -> None:
    with ledger.record("comparison", "first", "first", SETTINGS, {}) as first:
        reused = [write(ledger, "a"), write(ledger, "b")]
    with ledger.record("comparison", "second", "second", SETTINGS, {}) as second:
        for fingerprint in ("a", "missing", "b", "a"):
            ledger.find(fingerprint)
        write(ledger, "new")
        ledger.find("new")
    # Its own children are its children already.
    assert read_run(ledger.store, second.run_id).tags[REUSED_TAG] == ",".join(reused)
    assert REUSED_TAG not in read_run(ledger.store, first.run_id).tags
    ledger.find("a")
    third = write(ledger, "third", "comparison")
    assert REUSED_TAG not in read_run(ledger.store, third).tags


def test_a_comparison_that_is_opened_again_names_what_it_used_this_time(
    ledger: MlflowLedger,
) -> None:
    write(ledger, "a")
    with ledger.record("comparison", "c", "c", SETTINGS, {}) as run:
        ledger.find("a")
    again = write(ledger, "c", "comparison")
    assert again == run.run_id
    assert read_run(ledger.store, again).tags[REUSED_TAG] == ""


def test_a_better_model_is_promoted_and_a_worse_one_is_not(
    ledger: MlflowLedger, stand_in: Path
) -> None:
    answers = []
    for number, rmse in enumerate((0.7, 0.6, 0.8)):
        with ledger.record("cell", "x", f"f{number}", SETTINGS, {}) as run:
            run.model(stand_in, ["CCO"])
        answers.append((run.run_id, ledger.promote(run.run_id, "m", rmse, "scope", {"seed": 1})))
    assert [answer["replaced"] for _, answer in answers] == [True, True, False]
    best = answers[1][0]
    assert [answer["run_id"] for _, answer in answers] == [answers[0][0], best, best]
    assert {answer["model"] for _, answer in answers} == {"m"}
    assert "0.8 is not below 0.6" in answers[2][1]["reason"]


def test_the_regressor_of_a_record_is_a_folder(ledger: MlflowLedger, stand_in: Path) -> None:
    with ledger.record("cell", "x", "f", SETTINGS, {}) as run:
        run.model(stand_in, ["CCO"])
    assert (ledger.regressor_folder(run.run_id) / "manifest.json").read_text() == "{}"


def test_a_record_without_a_model_has_no_regressor(ledger: MlflowLedger) -> None:
    run_id = write(ledger, "f")
    with pytest.raises(TrackingError, match="has no model"):
        ledger.regressor_folder(run_id)
    with pytest.raises(TrackingError, match="has no model"):
        ledger.promote(run_id, "m", 0.5, "scope", {})
    with pytest.raises(TrackingError, match="no-such-run"):
        ledger.regressor_folder("no-such-run")


def test_a_model_that_lost_its_files_is_named(ledger: MlflowLedger, stand_in: Path) -> None:
    with ledger.record("cell", "x", "f", SETTINGS, {}) as run:
        run.model(stand_in, ["CCO"])
    (ledger.regressor_folder(run.run_id) / "manifest.json").unlink()
    with pytest.raises(ModelError, match="not a model that lipo has saved"):
        ledger.regressor_folder(run.run_id)


def test_scratch_lies_beside_the_store(ledger: MlflowLedger) -> None:
    assert ledger.store.root is not None
    assert ledger.scratch == ledger.store.root / "scratch"
    assert ledger.scratch.is_dir()
