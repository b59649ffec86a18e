"""Which pairs are judged, on what, and what is said of them."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.intervals import (
    Component,
    half_width,
    molecule_component,
    p_value,
    residual_variance,
    rmse_terms,
)
from lipo_cli.comparison.statistics import verdicts_of
from lipo_cli.comparison.summary import summarise
from lipo_cli.comparison.variation import arms_of, mean_interval
from lipo_cli.comparison.verdict import family_size

N_TEST = 50
MEASURED = np.random.default_rng(99).normal(size=N_TEST)


def cell(selection, seed, noise, *, split=None, n_selected=5, **more):
    """A cell whose test errors are normal with this standard deviation."""
    key = [ord(c) for c in selection] + [seed, split or 0]
    predicted = MEASURED + np.random.default_rng(key).normal(0, noise, N_TEST)
    frame = pd.DataFrame({"part": "test", "measured": MEASURED, "predicted": predicted})
    rmse = float(np.sqrt(np.mean((predicted - MEASURED) ** 2)))
    return CellResult(
        selection=selection,
        peft=more.pop("peft", "lora"),
        seed=seed,
        role=more.pop("role", "control" if selection.startswith("random:") else "asked"),
        status="finished",
        split=split,
        n_selected={"none": 0, "all": 24}.get(selection, n_selected),
        n_train=400,
        test_rmse=rmse,
        predictions=frame,
        **more,
    )


def cells(*selections, seeds=3, noise=0.6, **more):
    return [cell(name, seed, noise, **more) for seed in range(seeds) for name in selections]


def pairs(found):
    return [(v.selection, v.against) for v in found]


def test_every_selection_meets_its_controls():
    found = verdicts_of(
        cells("none", "all", "tsds:top=5", "tsds:bottom=5", "random:k=5", "random:k=9", "knn")
    )
    assert pairs(found) == [
        ("all", "none"),
        ("tsds:top=5", "none"),
        ("tsds:top=5", "all"),
        ("tsds:top=5", "random:k=5"),
        ("tsds:top=5", "tsds:bottom=5"),
        ("tsds:bottom=5", "none"),
        ("tsds:bottom=5", "all"),
        ("tsds:bottom=5", "random:k=5"),
        ("knn", "none"),
        ("knn", "all"),
        ("knn", "random:k=5"),
    ]


def test_sides_are_of_one_method():
    mixed = [*cells("none", peft="full"), *cells("all", peft="ia3")]
    assert verdicts_of(mixed) == []


def test_models_meet_the_first_with_the_same_selection():
    both = [*cells("none", model="a/plain"), *cells("none", model="b/adapted", noise=0.5)]
    assert pairs(verdicts_of(both)) == [("none", "none (plain)")]


def test_sides_with_the_same_rows_are_no_question():
    found = verdicts_of(
        [*cells("none", "all"), *cells("tsds", n_selected=0), *cells("knn", n_selected=24)]
    )
    assert pairs(found) == [("all", "none"), ("tsds", "all"), ("knn", "none")]


def test_a_verdict_is_the_design_written_out():
    arms = ("none", "all", "tsds")
    several = cells(*arms)
    rmses = {name: [c.test_rmse for c in several if c.selection == name] for name in arms}
    one = residual_variance([*range(3)] * 3, np.repeat(arms, 3), np.ravel([*rmses.values()]))
    differences = np.mean(
        [
            rmse_terms(a.predictions["predicted"], MEASURED)
            - rmse_terms(b.predictions["predicted"], MEASURED)
            for a, b in zip(several[2::3], several[0::3], strict=True)
        ],
        axis=0,
    )
    components = [Component(2 * one.variance / 3, 4), molecule_component(differences)]
    found = next(v for v in verdicts_of(several) if (v.selection, v.against) == ("tsds", "none"))
    delta = np.mean(np.subtract(rmses["tsds"], rmses["none"]))
    assert found.delta == pytest.approx(delta)
    assert found.high - found.low == pytest.approx(2 * half_width(components))
    assert found.p == pytest.approx(p_value(delta, components))
    assert (found.n_seeds, found.n_splits) == (3, 1)


def test_a_large_difference_is_seen_and_none_is_not():
    worse = [*cells("none", "tsds"), *cells("all", noise=1.2)]
    by_pair = {(v.selection, v.against): v for v in verdicts_of(worse)}
    bad, nothing = by_pair["all", "none"], by_pair["tsds", "none"]
    assert bad.significant
    assert ": worse" in bad.sentence()
    assert not nothing.significant
    assert "no difference shown" in nothing.sentence()
    assert f"{nothing.detectable:.3f} would have been seen" in nothing.sentence()


def test_the_correction_is_over_all_verdicts():
    found = verdicts_of(cells("none", "all", "tsds", "knn"))
    smallest = min(found, key=lambda v: v.p)
    assert smallest.p_holm == pytest.approx(min(1, len(found) * smallest.p))


def test_the_family_is_counted_by_questions():
    none = cells("none")
    twins = [replace(c, selection=name) for name in ("tsds", "influence") for c in none]
    found = verdicts_of([*none, *cells("all", "knn"), *twins])
    tested = [v for v in found if v.p is not None]
    # all, tsds and influence against each other's twin are one question.
    assert len(tested) == 5
    assert family_size(found) == 3
    smallest = min(tested, key=lambda v: v.p)
    assert smallest.p_holm == pytest.approx(min(1, 3 * smallest.p))
    old = [replace(v, n_tests=None) for v in found]
    assert family_size(old) == 5
    assert family_size([]) == 0


def test_one_question_under_several_names_is_tested_once():
    """What keeps nothing is `none` by another name, as its retrained cells show to the bit."""
    alike = [
        replace(c, selection=name) for name in ("tsds", "knn") for c in cells("none", n_selected=0)
    ]
    found = verdicts_of([*cells("none", "all"), *alike])
    assert pairs(found) == [("all", "none"), ("tsds", "all"), ("knn", "all")]
    assert {v.p_holm for v in found} == {found[0].p}
    assert {v.detectable for v in found} == {verdicts_of(cells("none", "all"))[0].detectable}
    assert [v.delta for v in found[1:]] == [-found[0].delta] * 2
    # On one of two splits only they are different questions.
    both = [
        replace(c, split=split, n_selected=5 if split and c.selection == "tsds" else c.n_selected)
        for split in (0, 1)
        for c in [*cells("none", "all", split=split), *alike[:3]]
    ]
    found = verdicts_of(both)
    assert pairs(found) == [("all", "none"), ("tsds", "none"), ("tsds", "all")]
    assert min(v.p_holm for v in found) == pytest.approx(min(1, 3 * min(v.p for v in found)))


def test_a_twin_that_lost_a_cell_takes_no_interval_away():
    """`none` and `all` lost seed 2, the selection that keeps nothing did not."""
    kept = [replace(c, selection="tsds") for c in cells("none", n_selected=0)]
    lost = [c for c in cells("none", "all") if c.seed < 2]
    arms = arms_of([*lost, *kept])
    low, high = mean_interval(("tsds", "lora", None), arms)
    assert low < np.mean([c.test_rmse for c in kept]) < high
    assert len(verdicts_of([*lost, *kept])) == 2


def test_an_interval_and_what_it_is_of_are_split_by_split():
    """A split that lost a seed counts as much as the other."""
    some = [
        cell(name, seed, 0.6 + split, split=split)
        for split in range(2)
        for seed in range(3)
        for name in ("none", "all")
        if split == 0 or seed == 0
    ]
    row = summarise(some)[1]
    assert row.delta_none == pytest.approx((row.delta_low + row.delta_high) / 2)
    # Two splits that differ by one: the interval would begin far below 0, where no error is.
    assert row.test_low == 0.0
    assert row.test_rmse < row.test_high / 2
    plain = np.mean([c.test_rmse for c in some if c.selection == "all"])
    assert abs(row.test_rmse - plain) > 0.1


def test_one_seed_is_no_test():
    (found,) = verdicts_of(cells("none", "all", seeds=1))
    assert (found.low, found.p, found.p_holm, found.significant) == (None, None, None, False)
    assert found.sentence().endswith(
        "against none: one seed: cannot be told from the noise of retraining"
    )


def test_sides_that_came_out_alike_are_said_to_be_so():
    several = [replace(c, model=m) for m in ("small", "copied") for c in cells("none", seeds=2)]
    (found,) = verdicts_of(several)
    assert (found.n_seeds, found.delta, found.p) == (2, 0.0, None)
    assert found.sentence().endswith("against none (small): the same to the digit with every seed")


def test_only_seeds_that_both_sides_finished_count():
    some = cells("none", "all")
    failed = replace(some[-1], status="failed", test_rmse=None)
    (found,) = verdicts_of([*some[:-1], failed])
    assert found.n_seeds == 2


def test_splits_are_the_unit_where_there_are_several():
    several = [
        cell(name, seed, 0.6, split=split)
        for split in range(4)
        for seed in range(2)
        for name in ("none", "all")
    ]
    (found,) = verdicts_of(several)
    deltas = [
        np.mean([c.test_rmse for c in several if (c.selection, c.split) == ("all", split)])
        - np.mean([c.test_rmse for c in several if (c.selection, c.split) == ("none", split)])
        for split in range(4)
    ]
    plain = ttest_1samp(deltas, 0).confidence_interval(0.95)
    assert (found.n_splits, found.n_seeds) == (4, 8)
    assert found.delta == pytest.approx(np.mean(deltas))
    # Nadeau and Bengio's factor beside an ordinary t test, which ignores that the splits overlap.
    factor = np.sqrt(1 + 4 * N_TEST / (400 - 24))
    assert found.high - found.low == pytest.approx(factor * (plain.high - plain.low))


def test_the_interval_of_a_mean_has_the_seeds_own_effect_and_the_residual():
    several = cells("none", "all", "knn")
    arms = arms_of(several)
    table = np.array([[c.test_rmse for c in runs.values()] for runs in arms.values()])
    own = several[0::3]
    terms = [rmse_terms(c.predictions["predicted"], MEASURED) for c in own]
    residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    components = [
        Component(table.mean(axis=0).var(ddof=1) / 3, 2),
        Component((residual**2).sum() / 4 * (2 / 3) / 3, 4),
        molecule_component(np.mean(terms, axis=0)),
    ]
    low, high = mean_interval(("none", "lora", None), arms)
    assert (low + high) / 2 == pytest.approx(table[0].mean())
    assert (high - low) / 2 == pytest.approx(half_width(components))
    assert mean_interval(("none", "lora", None), arms_of(several[:3])) is None


@pytest.mark.parametrize("n_equal", [0, 3])
@pytest.mark.parametrize("n_seeds", [2, 3])
def test_selections_that_keep_nothing_make_no_false_verdicts(n_seeds, n_equal):
    """They are `none` over again, to the digit: as arms of their own they would hide the noise."""
    rng = np.random.default_rng(11)
    n_trials, raw = 400, 0
    for _ in range(n_trials):
        seen = rng.normal(0.6, 0.01, (2 + 3 - n_equal, n_seeds))
        names = ["none", "all", *["a", "b", "c"][: 3 - n_equal]]
        some = [
            CellResult(
                *(f"knn:top={10 + i}" if i > 1 else name, "lora", seed, "asked", "finished"),
                n_selected={"none": 0, "all": 24}.get(name, 10 + i),
                test_rmse=seen[i, seed],
            )
            for i, name in enumerate(names)
            for seed in range(n_seeds)
        ]
        some += [
            replace(cell, selection=f"loo:positive={i}")
            for i in range(n_equal)
            for cell in some[:n_seeds]
        ]
        found = verdicts_of(some)
        (one,) = [v for v in found if (v.selection, v.against) == ("all", "none")]
        raw += one.p < 0.05
    assert raw / n_trials <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_trials)


def test_the_random_control_is_that_of_the_size_on_each_split():
    sizes = {1: 40, 2: 55, 3: 40}
    several = []
    for split, size in sizes.items():
        several += [
            cell("none", 0, 0.6, split=split),
            cell("tsds", 0, 0.5, split=split, n_selected=size),
            cell(f"random:k={size}", 0, 0.7, split=split, n_selected=size),
        ]
    found = {v.against: v for v in verdicts_of(several)}
    assert found.keys() == {"none", "random of equal size"}
    assert (found["random of equal size"].n_splits, found["random of equal size"].n_seeds) == (3, 3)
    deltas = [b.test_rmse - c.test_rmse for b, c in zip(several[1::3], several[2::3], strict=True)]
    assert found["random of equal size"].delta == pytest.approx(np.mean(deltas))
    (row,) = [row for row in summarise(several) if row.selection == "tsds"]
    assert row.delta_random == pytest.approx(np.mean(deltas))


def several_splits(sizes, seeds=2):
    """Splits by name, with how many points `tsds` keeps on each; none: it is `none` over again."""
    several = []
    for split, size in sizes.items():
        for seed in range(seeds):
            none = cell("none", seed, 0.6, split=split)
            several += [none, cell("all", seed, 0.6, split=split)]
            if size:
                several.append(cell("tsds", seed, 0.4, split=split, n_selected=size))
                control = cell(f"random:k={size}", seed, 0.8, split=split, n_selected=size)
                several.append(control)
            else:
                several.append(replace(none, selection="tsds"))
    return several


def test_a_pair_on_one_of_several_splits_is_no_test():
    several = several_splits({0: 10, 1: 0, 2: 0})
    found = {(v.selection, v.against): v for v in verdicts_of(several)}
    alone = found["tsds", "random:k=10"]
    assert (alone.n_splits, alone.of_splits, alone.n_seeds) == (1, 3, 2)
    assert (alone.low, alone.high, alone.p, alone.p_holm, alone.detectable) == (None,) * 5
    assert alone.sentence().endswith(
        "against random:k=10: one split: cannot be told from what another split would do"
    )
    assert alone.sentence().startswith("tsds / lora (on 1 of 3 splits): ")
    # It is no part of the family either, and the others are tested as they were without it.
    assert {v.n_tests for v in found.values() if v.p is not None} == {3}
    without = [c for c in several if not c.selection.startswith("random")]
    others = [v for v in found.values() if v is not alone]
    assert others == verdicts_of(without)
    # As the only split it is tested: then the verdict is about that split.
    (first,) = [v for v in verdicts_of(several[:8]) if v.against == "random:k=10"]
    assert first.p is not None


def test_a_mean_on_one_of_several_splits_has_no_interval():
    several = several_splits({0: 10, 1: 90, 2: 0})
    rows = {row.selection: row for row in summarise(several)}
    for name, n_splits in {"none": 3, "tsds": 3, "random:k=10": 1, "random:k=90": 1}.items():
        row = rows[name]
        assert (row.n_splits, row.of_splits) == (n_splits, 3)
        assert (row.test_low is None) == (n_splits == 1)
        assert row.name == name + (" (on 1 of 3 splits)" if n_splits == 1 else "")
    assert rows["tsds"].chosen == "0 to 90"
    assert rows["tsds"].trained == f"{400 - 10:,} to {400 + 80:,}"
    assert (rows["all"].chosen, rows["all"].trained) == ("24", "400")


def test_the_random_control_is_found_however_its_size_is_written():
    for name in ("random:k=7", "random:k=07"):
        several = cells("none", "all", "tsds:top=7", name, n_selected=7)
        found = [v for v in verdicts_of(several) if v.against == name]
        assert [v.selection for v in found] == ["tsds:top=7"]
        (row,) = [row for row in summarise(several) if row.selection == "tsds:top=7"]
        assert row.delta_random == pytest.approx(found[0].delta)


def test_what_would_have_been_seen_is_seen():
    """No difference beyond it is ever called none, the correction included."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        several = [
            replace(c, test_rmse=c.test_rmse + shift)
            for name in ("none", "all", "knn", "loo")
            for shift in [rng.normal(0, 0.1)]
            for c in cells(name)
        ]
        for verdict in verdicts_of(several):
            if not verdict.significant:
                assert abs(verdict.delta) <= verdict.detectable


def test_validation_rows_are_judged_as_test_rows_would_be():
    """The same numbers, whichever of the two parts they stand in."""
    several = cells("none", "all", "tsds")
    swapped = [
        replace(
            c,
            val_rmse=c.test_rmse,
            test_rmse=9.0,
            predictions=pd.concat(
                [
                    c.predictions.assign(part="val"),
                    c.predictions.assign(predicted=0.0),
                ]
            ),
        )
        for c in several
    ]
    assert verdicts_of([c.on_validation() for c in swapped]) == verdicts_of(several)
    failed = CellResult("tsds", "lora", 9, "asked", "failed")
    assert verdicts_of([failed.on_validation()]) == []


def light(selection, rmses, *, model=None, n_selected=5, run_ids=None):
    """Cells without predictions, one for each seed's test RMSE."""
    role = "control" if selection.startswith("random:") else "asked"
    return [
        CellResult(
            *(selection, "lora", seed, role, "finished"),
            model=model,
            run_id=run_ids and run_ids[seed],
            n_selected={"none": 0, "all": 24}.get(selection, n_selected),
            test_rmse=float(rmse),
        )
        for seed, rmse in enumerate(rmses)
    ]


def test_two_models_are_judged_by_their_own_differences():
    """Without test molecules it is the paired t test over seeds, whatever the other arms do."""
    rng = np.random.default_rng(3)
    seen = {
        (name, model): rng.normal(0.6, 0.02, 4)
        for model in ("plain", "adapted")
        for name in ("none", "all", "knn")
    }
    several = [c for (name, model), rmses in seen.items() for c in light(name, rmses, model=model)]
    found = {v.selection: v for v in verdicts_of(several) if v.against.endswith("(plain)")}
    assert found.keys() == {"none", "all", "knn"}
    for name, verdict in found.items():
        expected = ttest_rel(seen[name, "adapted"], seen[name, "plain"])
        ends = expected.confidence_interval(0.95)
        assert verdict.p == pytest.approx(expected.pvalue)
        assert (verdict.low, verdict.high) == pytest.approx((ends.low, ends.high))


def test_test_molecules_join_the_seeds_of_two_models():
    """The other component is that of the pair's molecules, as with one model."""
    first, second = (cells("none", model=m, noise=y) for m, y in (("a", 0.6), ("b", 0.5)))
    others = cells("all", model="b", noise=0.7)
    gaps = [b.test_rmse - a.test_rmse for a, b in zip(first, second, strict=True)]
    terms = [
        np.mean([rmse_terms(c.predictions["predicted"], MEASURED) for c in each], axis=0)
        for each in (second, first)
    ]
    components = [
        Component(np.var(gaps, ddof=1) / 3, 2),
        molecule_component(terms[0] - terms[1]),
    ]
    found = next(v for v in verdicts_of([*first, *second, *others]) if v.against == "none (a)")
    assert found.p == pytest.approx(p_value(np.mean(gaps), components))
    assert found.high - found.low == pytest.approx(2 * half_width(components))


def test_models_that_seeds_move_apart_make_no_false_verdicts():
    """A seed moves all arms of a model together: pooled over arms, a fifth of p were below 5 %."""
    rng = np.random.default_rng(7)
    n_trials, n_seeds, p_values = 400, 3, []
    names = ["none", *(f"random:k={k}" for k in range(1, 6))]
    for _ in range(n_trials):
        some = []
        for model in ("plain", "adapted"):
            of_seed = rng.normal(0.6, 0.02, n_seeds)
            for k, name in enumerate(names):
                rmses = of_seed + rng.normal(0, 0.005, n_seeds)
                some += light(name, rmses, model=model, n_selected=k)
        found = verdicts_of(some)
        assert pairs(found) == [(name, f"{name} (plain)") for name in names]
        p_values += [v.p for v in found]
    assert 0.02 < np.mean(np.array(p_values) < 0.05) < 0.08


def test_selections_of_the_same_points_are_one_question():
    """They share their runs; points of another choice of that size are another question."""
    rng = np.random.default_rng(1)
    none, whole = (light(name, rng.normal(0.6, 0.01, 3)) for name in ("none", "all"))
    rmses = rng.normal(0.6, 0.01, 3)
    same, others = ["one", "two", "three"], ["four", "five", "six"]
    chosen = light("tsds:top=5", rmses, run_ids=same)
    twin = light("knn:top=5", rmses, run_ids=same)
    found = verdicts_of([*none, *whole, *chosen, *twin])
    assert pairs(found) == [
        ("all", "none"),
        *(("tsds:top=5", "none"), ("tsds:top=5", "all")),
        *(("knn:top=5", "none"), ("knn:top=5", "all")),
    ]
    assert family_size(found) == 3
    assert [v.p_holm for v in found[1:3]] == [v.p_holm for v in found[3:]]
    smallest = min(found, key=lambda v: v.p)
    assert smallest.p_holm == pytest.approx(min(1, 3 * smallest.p))
    apart = light("knn:top=5", rng.normal(0.6, 0.01, 3), run_ids=others)
    assert family_size(verdicts_of([*none, *whole, *chosen, *apart])) == 5
    # Against the random control that happened to draw them there is no question.
    drawn = light("random:k=5", rmses, run_ids=same)
    assert ("tsds:top=5", "random:k=5") not in pairs(verdicts_of([*none, *chosen, *drawn]))


def test_no_corrected_p_is_below_its_own():
    """`none` trained twice, once by another name, with slightly different results."""
    rng = np.random.default_rng(2)
    n_differ = 0
    for _ in range(30):
        control, shift = rng.normal(0.6, 0.01, 3), rng.normal(0, 0.01)
        again = light("tsds", control + rng.normal(0, 0.002, 3), n_selected=0)
        whole = light("all", control + shift + rng.normal(0, 0.002, 3))
        found = verdicts_of([*light("none", control), *whole, *again])
        assert pairs(found) == [("all", "none"), ("tsds", "all")]
        assert family_size(found) == 1
        assert len({v.p_holm for v in found}) == 1
        assert all(v.p_holm >= v.p for v in found)
        n_differ += found[0].p > 1.1 * found[1].p
    assert n_differ > 3, "no draw put the question to the test"


@pytest.mark.parametrize("scale", [1e-5, 1e-8, 1, 1e3])
def test_a_verdict_has_the_digits_of_its_errors(scale):
    rng = np.random.default_rng(4)
    rmses = rng.normal(0.6, 0.01, (2, 3)) * scale
    (found,) = verdicts_of([*light("none", rmses[0]), *light("all", rmses[1])])
    assert not found.significant
    said = re.findall(r"[+-](\d+\.?\d*)", found.numbers().split(" against ")[0])
    for text, value in zip(said, (found.delta, found.low, found.high), strict=True):
        assert set(text) - {"0", "."}
        assert float(text) == pytest.approx(abs(value), abs=0.001 * scale)
    seen = re.search(r"shown; (\S+) would have been seen", found.outcome())
    assert seen is not None
    assert float(seen[1]) == pytest.approx(found.detectable, abs=0.001 * scale)
    assert set(seen[1]) - {"0", "."}


def test_a_random_choice_that_was_asked_for_meets_nothing_and_everything():
    found = verdicts_of(cells("none", "all", "random:k=5", role="asked"))
    assert pairs(found) == [("all", "none"), ("random:k=5", "none"), ("random:k=5", "all")]
    assert {v.n_tests for v in found} == {3}
    assert pairs(verdicts_of(cells("none", "all", "random:k=5"))) == [("all", "none")]


def test_a_small_p_is_below_and_not_equal_to_it():
    (found,) = verdicts_of(cells("none", "all"))
    small = replace(found, p=1e-5, p_holm=2e-5)
    assert "against none, p < 0.001 (Holm < 0.001): " in small.sentence()
    assert "against none, p = 0.04 (Holm 0.12): " in replace(found, p=0.04, p_holm=0.12).sentence()


@pytest.mark.parametrize(("factor", "low", "high"), [(1, 0.02, 0.08), (2, 0.07, 0.15)])
def test_a_noisier_selection_is_judged_as_docs_say(factor, low, high):
    """The noise of seeds is pooled over selections: docs/statistics.md says what that costs."""
    rng = np.random.default_rng(3)
    n_trials, p_values, n_false = 400, [], 0
    sizes = {"none": 0, "all": 24, "tsds": 5, "random:k=5": 5, "random:k=7": 7, "knn": 7}
    for _ in range(n_trials):
        of_seed, some = rng.normal(0.6, 0.02, 3), []
        for name, size in sizes.items():
            sd = 0.01 * (factor if name == "tsds" else 1)
            some += light(name, of_seed + rng.normal(0, sd, 3), n_selected=size)
        found = verdicts_of(some)
        p_values += [v.p for v in found if v.selection == "tsds"]
        n_false += any(v.significant for v in found)
    assert low < np.mean(np.array(p_values) < 0.05) < high
    assert n_false / n_trials < (0.07 if factor == 1 else 0.12)
