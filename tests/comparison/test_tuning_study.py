"""The search itself: the same trials whatever happens to the process, and none twice."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from lipo_cli.comparison import tuning_study
from lipo_cli.comparison.tuning_space import Range
from lipo_cli.comparison.tuning_storage import open_storage
from lipo_cli.comparison.tuning_study import OpenStudy, TrialLostError, open_study
from lipo_cli.comparison.tuning_trial import TrialResult, importances
from lipo_cli.errors import TrackingError
from lipo_cli.settings_tuning import TuningSettings
from tests.fixtures.studies import (
    BEST_RATE,
    N_EPOCHS,
    SPACE,
    Processes,
    curve_of,
    run_trial,
    searched,
)

N = 16


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "tuning" / "study.log"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[TrialResult]:
    """A search that nothing disturbed."""
    return searched(tmp_path_factory.mktemp("whole") / "study.log", N)


def told(results: list[TrialResult]) -> list[tuple[Any, ...]]:
    """Returns what a search came to, but for its time."""
    return [(r.ordinal, r.state, r.parameters, r.val_rmse, r.curve) for r in results]


def opened(storage: Any, process: Processes, n: int = N) -> OpenStudy:
    ledger: Any = process
    return open_study(storage, "study", SPACE, TuningSettings(trials=n), N_EPOCHS, ledger, "here")


def all_states(journal: Path) -> list[str]:
    with open_storage(None, journal) as storage:
        trials = opened(storage, Processes()).study.get_trials()
    return [trial.state.name for trial in trials]


def test_the_first_trial_is_the_settings_and_all_are_inside_the_ranges(
    whole: list[TrialResult],
) -> None:
    assert whole[0].parameters == {"learning_rate": 2e-3, "lora_rank": 8}
    assert [r.ordinal for r in whole] == list(range(N))
    for result in whole:
        assert 2e-4 <= result.parameters["learning_rate"] <= 2e-2
        rank = result.parameters["lora_rank"]
        assert isinstance(rank, int)
        assert 2 <= rank <= 32
    assert len({r.parameters["learning_rate"] for r in whole}) == N


def test_it_comes_nearer_to_the_best_rate(whole: list[TrialResult]) -> None:
    complete = [r for r in whole if r.state == "complete"]
    best = min(complete, key=lambda r: r.val_rmse or 9)
    assert best.val_rmse == min(curve_of(best.parameters))
    assert abs(best.parameters["learning_rate"] / BEST_RATE - 1) < 0.25


def test_the_same_seed_gives_the_same_trials_and_another_others(
    whole: list[TrialResult], journal: Path
) -> None:
    assert told(searched(journal, N)) == told(whole)
    other = searched(journal, N, tuning=TuningSettings(trials=N, seed=1), name="other")
    assert other[0].parameters == whole[0].parameters
    assert [r.parameters for r in other[1:]] != [r.parameters for r in whole[1:]]


@pytest.mark.parametrize("n", [5, 11])
def test_the_first_trials_of_many_are_those_of_few(
    whole: list[TrialResult], journal: Path, n: int
) -> None:
    few = searched(journal, n)
    assert told(few) == told(whole[:n])
    assert told(searched(journal, N)) == told(whole)
    assert told(searched(journal, n)) == told(few)


class Killed(BaseException):
    """The process is gone."""


def test_killed_wherever_it_is_it_ends_with_the_same_trials(
    whole: list[TrialResult], journal: Path
) -> None:
    """Killed in every trial in turn, once before its first epoch and once in the middle."""
    deaths = [(i, epoch) for i in range(N) for epoch in (1, 2)]
    results: list[TrialResult] = []
    while not results:

        def on_epoch(ordinal: int, epoch: int) -> None:
            if deaths and (ordinal, epoch) == deaths[0]:
                deaths.pop(0)
                raise Killed

        try:
            results = searched(journal, N, on_epoch=on_epoch)
        except Killed:
            continue
    assert not deaths
    assert told(results) == told(whole)
    states = all_states(journal)
    assert states.count("COMPLETE") + states.count("PRUNED") == N
    assert states.count("FAIL") == 2 * N
    assert len(states) == 3 * N


def test_a_search_that_is_over_computes_nothing(whole: list[TrialResult], journal: Path) -> None:
    searched(journal, N)
    before = journal.read_bytes()

    def never(ordinal: int, epoch: int) -> None:
        raise AssertionError

    assert told(searched(journal, N, on_epoch=never)) == told(whole)
    assert journal.read_bytes() == before


def test_a_trial_of_a_living_process_is_left_to_it(journal: Path) -> None:
    with open_storage(None, journal) as storage:
        other = opened(storage, Processes("other"), 3).claim(3)
        assert other is not None
        mine = opened(storage, Processes("me", alive={"other": True}), 3)
        mine.give_back()
        for _ in range(2):
            taken = mine.claim(3)
            assert taken is not None
            run_trial(mine, taken)
        assert [r.ordinal for r in mine.finished(3)] == [1, 2]
        assert mine.claim(3) is None
        assert mine.n_open(3) == 1
        mine.ledger = Processes("me", alive={"other": False})  # type: ignore[assignment]
        mine.give_back()
        again = mine.claim(3)
        assert again is not None
        assert again.params == other.params
        with pytest.raises(TrialLostError):
            mine.report(other, 1, 1.0, last=False)
        assert mine.close(other, 1.0, 1.0) is None
        run_trial(mine, again)
        assert [r.ordinal for r in mine.finished(3)] == [0, 1, 2]


def test_a_trial_of_another_machine_is_given_up_when_it_has_long_been_silent(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_storage(None, journal) as storage:
        assert opened(storage, Processes("other")).claim(3) is not None
        mine = opened(storage, Processes("me", alive={"other": None}))
        mine.give_back()
        assert mine.n_open(3) == 1
        later = time.time() + tuning_study.SILENT_S + 1
        monkeypatch.setattr(tuning_study.time, "time", lambda: later)
        mine.give_back()
        assert mine.n_open(3) == 0


def test_of_two_that_begin_at_once_each_trial_has_one(journal: Path) -> None:
    """Both found no trial and enqueued the first one."""
    with open_storage(None, journal) as storage:
        study = opened(storage, Processes())
        study.study.enqueue_trial({"learning_rate": 2e-3, "lora_rank": 8}, {"ordinal": 0})
        ordinals = []
        while (trial := study.claim(4)) is not None:
            ordinals.append(study.ordinal(trial))
            run_trial(study, trial)
        assert ordinals == [0, 1, 2, 3]


def test_two_processes_that_take_turns_share_the_trials(journal: Path) -> None:
    with open_storage(None, journal) as first, open_storage(None, journal) as second:
        studies = [
            opened(first, Processes("a", alive={"b": True})),
            opened(second, Processes("b", alive={"a": True})),
        ]
        open_trials = [study.claim(6) for study in studies]
        for turn in range(6):
            study = studies[turn % 2]
            run_trial(study, open_trials[turn % 2])
            study.give_back()
            open_trials[turn % 2] = study.claim(6)
        assert open_trials == [None, None]
        results = [told(study.finished(6)) for study in studies]
    assert results[0] == results[1]
    assert [r[0] for r in results[0]] == list(range(6))
    assert len({r[2]["learning_rate"] for r in results[0]}) == 6


def test_pruning_is_the_median_rule(journal: Path) -> None:
    """Against the rule in plain words: the best so far is above the median of complete trials."""
    tuning = TuningSettings(trials=N, prune_after_trials=3, prune_after=0.4, seed=3)
    results = searched(journal, N, tuning=tuning)
    assert {r.state for r in results} == {"complete", "pruned"}
    for result in results:
        before = [r for r in results[: result.ordinal] if r.state == "complete"]
        expected = N_EPOCHS
        for epoch in range(2, N_EPOCHS):  # the first 40 % of 5 are free, the last is not stopped
            others = [r.curve[epoch] for r in before]
            so_far = min(curve_of(result.parameters)[:epoch])
            if len(before) >= 3 and so_far > statistics.median(others):
                expected = epoch
                break
        assert len(result.curve) == expected
        assert (result.state == "pruned") == (expected < N_EPOCHS)
    free = searched(journal, N, tuning=TuningSettings(trials=N, prune=False), name="free")
    assert {r.state for r in free} == {"complete"}


def test_what_cannot_be_trained_is_over_and_kept_away_from(journal: Path) -> None:
    """Rates above 5e-3 diverge: with the sampler told, hardly any of the later ones lies there."""
    with open_storage(None, journal) as storage:
        study = opened(storage, Processes(), 30)
        while (trial := study.claim(30)) is not None:
            if trial.params["learning_rate"] > 5e-3:
                study.close(trial, None, 1.0, error="the loss became nan")
            else:
                run_trial(study, trial)
        results = study.finished(30)
    assert len(results) == 30
    lost = [r.ordinal for r in results if r.state == "diverged"]
    assert lost
    assert sum(i >= 15 for i in lost) <= 4
    for i in lost:
        assert (results[i].val_rmse, results[i].error) == (None, "the loss became nan")


def test_what_a_kill_cut_off_in_the_journal_is_dropped(
    whole: list[TrialResult], journal: Path
) -> None:
    searched(journal, 5)
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","study')
    assert told(searched(journal, N)) == told(whole)


@pytest.mark.parametrize("damage", [b"no journal\n", b'{"op_code": 6, "trial_id": "x"}\n', b"[]\n"])
def test_a_damaged_journal_is_one_line(journal: Path, damage: bytes) -> None:
    searched(journal, 2)
    journal.write_bytes(damage + journal.read_bytes())
    with pytest.raises(TrackingError) as caught:
        searched(journal, 3)
    assert "\n" not in str(caught.value)
    assert "the trials cannot be read or written" in str(caught.value)


def test_a_journal_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(TrackingError, match="cannot be written"):
        searched(tmp_path / "taken" / "study.log", 2)


def test_importance_finds_the_parameter_that_matters(whole: list[TrialResult]) -> None:
    found = importances(whole, SPACE)
    assert sum(found.values()) == pytest.approx(1)
    assert found["learning_rate"] > 0.7


def test_importance_is_silent_where_nothing_can_be_said(whole: list[TrialResult]) -> None:
    complete = [r for r in whole if r.state == "complete"]
    assert importances(complete[:3], SPACE) == {}
    assert importances([], SPACE) == {}
    alone = [
        TrialResult(r.ordinal, r.state, {"learning_rate": r.parameters["learning_rate"]},
                    r.val_rmse, r.curve, 1.0)
        for r in whole
    ]  # fmt: skip
    assert importances(alone, SPACE[:1]) == {}


def test_a_first_trial_far_away_is_inside_its_widened_range(journal: Path) -> None:
    wide = (Range("learning_rate", 1e-7, 2e-2, log=True, whole=False, first=1e-7),)
    results = searched(journal, 12, space=wide)
    assert results[0].parameters == {"learning_rate": 1e-7}
    assert min(r.val_rmse or 9 for r in results) < (results[0].val_rmse or 0) - 2
