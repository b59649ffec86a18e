"""Means, paired differences and the champion."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.metrics import regression_metrics
from lipo_cli.comparison.summary import (
    pick_champion,
    seeds_text,
    selection_overlaps,
    summarise,
    why_no_champion,
)


def cell(selection, seed, test, val=None, peft="lora", status="finished"):
    return CellResult(
        selection=selection,
        peft=peft,
        seed=seed,
        role="asked",
        status=status,
        run_id=f"{selection}-{peft}-{seed}",
        test_rmse=test,
        val_rmse=test if val is None else val,
    )


TEST = pd.DataFrame({"part": ["test"] * 20, "measured": 0.0, "predicted": 1.0})
CONTROL, CHOSEN = [0.70, 0.74, 0.66], [0.66, 0.72, 0.65]
CELLS = [
    *(cell("none", seed, value) for seed, value in enumerate(CONTROL)),
    *(cell("tsds", seed, value) for seed, value in enumerate(CHOSEN)),
]


def test_the_interval_of_the_paired_difference_is_students():
    row = summarise(CELLS)[1]
    differences = np.subtract(CHOSEN, CONTROL)
    interval = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert row.delta_none == pytest.approx(differences.mean())
    assert (row.delta_low, row.delta_high) == pytest.approx((interval.low, interval.high))
    assert row.test_rmse_sd == pytest.approx(np.std(CHOSEN, ddof=1))


def test_pairs_are_made_by_seed_and_not_by_order():
    shuffled = [CELLS[2], CELLS[0], CELLS[1], CELLS[5], CELLS[3], CELLS[4]]
    assert summarise(shuffled)[1].delta_none == pytest.approx(summarise(CELLS)[1].delta_none)


def test_one_seed_has_no_interval():
    row = summarise([CELLS[0], CELLS[3]])[1]
    assert row.delta_none == pytest.approx(-0.04)
    assert row.delta_low is None
    assert row.test_rmse_sd is None


def test_the_control_is_of_the_same_method():
    rows = summarise([cell("none", 0, 0.9, peft="ia3"), cell("tsds", 0, 0.7)])
    assert rows[1].delta_none is None


def test_a_choice_is_set_beside_the_random_control_of_its_size():
    chosen = CellResult("tsds", "lora", 0, "asked", "finished", n_selected=7, test_rmse=0.6)
    chance = CellResult("random:k=7", "lora", 0, "control", "finished", n_selected=7, test_rmse=0.7)
    other = CellResult("random:k=9", "lora", 0, "control", "finished", n_selected=9, test_rmse=0.1)
    rows = summarise([chosen, chance, other])
    assert rows[0].delta_random == pytest.approx(-0.1)
    assert rows[1].delta_random is None


def test_a_failed_cell_leaves_the_others_their_numbers():
    failed = cell("tsds", 3, None, status="failed")
    row = summarise([*CELLS, failed])[1]
    assert (row.n_seeds, row.n_failed) == (3, 1)
    assert row.test_rmse == pytest.approx(np.mean(CHOSEN))


def test_the_champion_is_chosen_on_validation_alone():
    cells = [
        cell("none", 0, test=0.50, val=0.70),
        cell("tsds", 0, test=0.90, val=0.65),
        cell("tsds", 1, test=0.95, val=0.61),
    ]
    champion = pick_champion(cells)
    assert champion is not None
    assert champion.run_id == "tsds-lora-1"


def test_the_best_mean_wins_over_the_best_single_seed():
    cells = [
        cell("none", 0, 0.7, val=0.60),
        cell("none", 1, 0.7, val=0.80),
        cell("all", 0, 0.7, val=0.65),
        cell("all", 1, 0.7, val=0.66),
    ]
    champion = pick_champion(cells)
    assert champion is not None
    assert champion.selection == "all"


def test_a_secondary_set_that_failed_its_audit_makes_no_champion():
    """Labels computed from validation labels win on validation: that must not count."""
    none = CellResult("none", "lora", 0, "control", "finished", n_selected=0, val_rmse=0.7)
    leaked = CellResult("all", "lora", 0, "control", "finished", n_selected=9, val_rmse=0.1)
    cells = [none, leaked]
    assert pick_champion(cells) is leaked
    assert pick_champion(cells, pool_is_sound=False) is none
    assert pick_champion([leaked], pool_is_sound=False) is None


def test_no_champion_when_everything_failed():
    cells = [CellResult("none", "lora", 0, "control", "failed", error="diverged")]
    assert pick_champion(cells) is None


def test_overlap_of_selections_is_jaccards():
    chosen = {"none": np.array([], int), "a": np.array([1, 2, 3]), "b": np.array([2, 3, 4])}
    (overlap,) = selection_overlaps(chosen)
    assert (overlap.first, overlap.second, overlap.jaccard) == ("a", "b", 0.5)


def test_metrics_against_sklearn():
    from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

    rng = np.random.default_rng(0)
    measured, predicted = rng.normal(size=50), rng.normal(size=50)
    found = regression_metrics(predicted, measured)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(measured, predicted))
    assert found["mae"] == pytest.approx(mean_absolute_error(measured, predicted))
    assert found["r2"] == pytest.approx(r2_score(measured, predicted))


def test_a_constant_prediction_has_no_rank_correlation():
    found = regression_metrics(np.ones(5), np.arange(5.0))
    assert found["spearman"] is None
    assert found["r2"] == pytest.approx(-0.5)


def test_models_are_set_beside_the_first_with_the_same_seeds():
    def of(model, values):
        return [replace(cell("none", seed, v), model=model) for seed, v in enumerate(values)]

    first, second = summarise([*of("plain", CONTROL), *of("adapted", CHOSEN)])
    differences = np.subtract(CHOSEN, CONTROL)
    interval = ttest_1samp(differences, 0).confidence_interval(0.95)
    assert first.delta_model is None
    assert second.delta_model == pytest.approx(differences.mean())
    ends = (second.delta_model_low, second.delta_model_high)
    assert ends == pytest.approx((interval.low, interval.high))
    assert second.delta_none is None
    assert (first.label, second.label) == ("none (plain)", "none (adapted)")


def test_the_control_is_of_the_same_model():
    cells = [
        replace(cell("none", 0, 0.9), model="a"),
        replace(cell("all", 0, 0.8), model="a"),
        replace(cell("none", 0, 0.5), model="b"),
        replace(cell("all", 0, 0.6), model="b"),
    ]
    rows = summarise(cells)
    assert rows[1].delta_none == pytest.approx(-0.1)
    assert rows[3].delta_none == pytest.approx(0.1)
    assert rows[3].delta_model == pytest.approx(-0.2)
    champion = pick_champion(cells)
    assert champion is not None
    assert (champion.selection, champion.model) == ("none", "b")


def test_a_failed_first_seed_does_not_hide_the_random_control():
    numbers = [(0, None, "failed"), (1, 0.6, "finished"), (2, 0.62, "finished")]
    chosen = [
        CellResult("tsds", "lora", i, "asked", state, test_rmse=y, n_selected=7 if y else None)
        for i, y, state in numbers
    ]
    chance = [
        CellResult("random:k=7", "lora", i, "control", "finished", test_rmse=0.7, n_selected=7)
        for i in range(3)
    ]
    assert summarise([*chosen, *chance])[0].delta_random == pytest.approx(-0.09)


def test_the_champion_does_not_win_by_a_seed_that_failed():
    cells = [
        cell("none", 0, 0.60),
        cell("none", 1, 0.80),
        cell("all", 0, 0.65),
        cell("all", 1, None, status="failed"),
    ]
    champion = pick_champion(cells)
    assert champion is not None
    assert (champion.selection, champion.seed) == ("none", 0)


def test_of_several_splits_the_first_alone_crowns():
    """Random controls are named by size, and may stand on one split only."""
    several = [
        replace(cell(name, 0, test=0.5, val=value), split=split)
        for split, values in (
            (0, {"none": 0.600, "tsds": 0.580, "random:k=57": 0.605}),
            (1, {"none": 0.700, "tsds": 0.680, "random:k=30": 0.505}),
        )
        for name, value in values.items()
    ]
    champion = pick_champion(several)
    assert champion is not None
    assert (champion.selection, champion.split) == ("tsds", 0)
    assert pick_champion(several[3:]) is several[5]


def test_rows_without_a_common_seed_are_not_ranked_across_seeds():
    """Seed 1 is the easier one: the row that has it alone has beaten nobody on it."""
    rows = {
        "none": {0: 0.60},
        "tsds": {1: 0.52},
        "all": {0: 0.61, 1: 0.51},
    }
    cells = [cell(name, seed, y) for name, by_seed in rows.items() for seed, y in by_seed.items()]
    for order in permutations(cells):
        champion = pick_champion(order)
        assert champion is not None
        assert (champion.selection, champion.seed) == ("none", 0)


def test_failed_seeds_leave_the_shared_ones_to_rank_by():
    rows = {
        "none": [0.70, 0.60, None],
        "all": [0.71, 0.59, 0.20],
        "tsds": [None, 0.58, 0.90],
        "knn": [0.69, None, 0.90],
    }
    cells = [
        cell(name, seed, y, status="failed" if y is None else "finished")
        for name, values in rows.items()
        for seed, y in enumerate(values)
    ]
    # Without `knn`, seed 1 is the one that all have finished.
    champion = pick_champion(cells[:9])
    assert champion is not None
    assert (champion.selection, champion.seed) == ("tsds", 1)
    # With it there is no such seed. Each has been finished by three: the first one counts, which
    # `tsds` lacks, and of those that have it no other is shared by all.
    champion = pick_champion(cells)
    assert champion is not None
    assert (champion.selection, champion.seed) == ("knn", 0)


def test_validation_is_a_mean_over_splits_too():
    def on(split, seed, value):
        return replace(cell("none", seed, value), split=split, n_train=80, predictions=TEST)

    cells = [on(0, 0, 0.6), on(0, 1, 0.8), on(0, 2, 0.7), on(1, 0, 0.9)]
    (row,) = summarise(cells)
    assert row.val_rmse == row.test_rmse == pytest.approx((0.7 + 0.9) / 2)


def test_a_row_that_lost_a_cell_says_so_behind_its_name():
    rows = summarise([*CELLS[:5], cell("tsds", 2, None, status="failed")])
    assert [row.name for row in rows] == ["none", "tsds (2 of 3 cells)"]
    assert seeds_text(rows) == "2 to 3"
    assert seeds_text(summarise(CELLS)) == "3"


def test_why_there_is_no_champion():
    done, lost = cell("all", 0, 0.6), cell("none", 0, None, status="failed")
    assert why_no_champion([lost], pool_is_sound=True) == "none finished"
    later = [replace(c, split=split) for split, c in enumerate((lost, done))]
    assert why_no_champion(later, pool_is_sound=True).endswith("first split, which alone counts")
    assert why_no_champion([done], pool_is_sound=False).startswith("the audit failed")
    rerun = why_no_champion([done], pool_is_sound=False, offers_champion=False)
    assert rerun.startswith("this recipe is rerun")


def test_one_seed_has_no_interval_to_be_counted():
    rows = summarise([*CELLS, cell("knn", 0, 0.7)])
    assert seeds_text(rows) == "3"
