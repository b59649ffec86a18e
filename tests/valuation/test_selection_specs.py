"""Selections written as text: what they take, what they say, what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from lipo_cli.errors import SettingsError, ValuationError
from lipo_cli.valuation.selection import PointScores, Selection
from lipo_cli.valuation.selection_text import FORMS, parse_selection

VALUES = np.array([0.1, -0.2, 0.5, 0.3, -0.05])
SCORES = PointScores(VALUES, np.array([0.08, 0.1, 0.1, 0.1, 0.1]), n_optimal=2)


def take(text, scores=SCORES, n=5, seed=0):
    return parse_selection(text).select(scores, n, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", []),
        ("all", [0, 1, 2, 3, 4]),
        ("tsds", [2, 3]),
        ("tsds:optimal", [2, 3]),
        ("tsds:positive", [0, 2, 3]),
        ("tsds:positive=2", [2, 3]),
        ("tsds:positive=4.5", [2]),
        ("tsds:top=1", [2]),
        ("tsds:top=5", [0, 1, 2, 3, 4]),
        ("tsds:bottom=2", [1, 4]),
        (" TSDS:Top=3 ", [0, 2, 3]),
        ("influence", [2, 3]),
        ("knn:top=1", [2]),
        ("loo:positive=2", [2, 3]),
        ("uncertain:top=2", [2, 3]),
    ],
)
def test_the_points_that_a_selection_takes(text, expected):
    selected = take(text)
    assert selected.positions.tolist() == expected
    assert len(selected) == len(expected)
    assert len(selected.reasons) == 5


@pytest.mark.parametrize(
    ("text", "kept", "left"),
    [
        ("tsds:top=1", "rank 1 of 5, kept: top 1", "rank 5 of 5, left out: not in the top 1"),
        (
            "tsds:positive=2",
            "rank 1 of 5, kept: value - 2 standard errors > 0",
            "rank 5 of 5, left out: value - 2 standard errors <= 0",
        ),
        (
            "tsds",
            "rank 1 of 5, kept: the removal curve keeps the best 2",
            "rank 5 of 5, left out: the removal curve keeps the best 2",
        ),
    ],
)
def test_every_point_hears_why(text, kept, left):
    reasons = take(text).reasons
    assert (reasons[2], reasons[1]) == (kept, left)


ALIKE = PointScores(
    np.array([0.5, 0.4, 0.3, 0.2, 0.1, -1.0]),
    np.full(6, 0.1),
    smiles=["CCCCCCO", "CCCCCCCO", "c1ccccc1C", "CCCCCCCCO", "c1ccccc1CC", "N"],
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tsds:diverse=2", [0, 2]),
        ("tsds:diverse=3/1", [0, 1, 2]),
        ("tsds:diverse=6", [0, 2, 4, 5]),
        ("tsds:diverse=6/0.2", [0, 2, 5]),
    ],
)
def test_no_two_diverse_points_are_more_alike_than_the_cap(text, expected):
    selected = take(text, ALIKE, 6)
    assert selected.positions.tolist() == expected
    cap = parse_selection(text).cap
    make = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint
    prints = [make(Chem.MolFromSmiles(ALIKE.smiles[i])) for i in expected]
    for i, one in enumerate(prints):
        assert all(s <= cap for s in DataStructs.BulkTanimotoSimilarity(one, prints[:i]))


def test_a_point_that_is_passed_over_hears_by_which_it_was():
    reasons = take("tsds:diverse=3", ALIKE, 6).reasons
    assert reasons[0] == "rank 1 of 6, kept: among the best 3 of similarity 0.6 at most"
    assert reasons[1].startswith("rank 2 of 6, left out: similarity 1.00")
    assert reasons[1].endswith(" to rank 1")
    assert reasons[5].startswith("rank 6 of 6, left out: not among the best 3")
    with pytest.raises(ValuationError, match="needs the points' molecules"):
        take("tsds:diverse=2")


def test_equal_values_rank_in_the_order_of_the_file():
    scores = PointScores(np.array([1.0, 2.0, 1.0, 1.0]), np.zeros(4))
    assert take("tsds:top=2", scores, 4).positions.tolist() == [0, 1]
    assert take("tsds:bottom=1", scores, 4).positions.tolist() == [3]


def test_top_and_bottom_of_half_the_pool_share_no_point():
    rng = np.random.default_rng(0)
    scores = PointScores(rng.normal(size=40), np.zeros(40))
    top, bottom = (set(take(f"tsds:{rule}=20", scores, 40).positions) for rule in ("top", "bottom"))
    assert not top & bottom
    assert len(top | bottom) == 40


def test_random_is_seeded_and_draws_without_replacement():
    draws = [take("random:k=30", None, 100, seed).positions.tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 30
    assert draws[0] == sorted(draws[0])
    reasons = take("random:k=2", None).reasons
    assert set(reasons) == {"kept at random: 2 of 5", "left out at random: 2 of 5"}


def test_random_takes_every_point_equally_often():
    rng, selection = np.random.default_rng(0), parse_selection("random:k=3")
    counts = np.zeros(10)
    for _ in range(3000):
        counts[selection.select(None, 10, rng).positions] += 1
    # 900 expected, standard deviation 25.
    assert np.abs(counts - 900).max() < 110


def test_an_optimum_of_no_point_selects_nothing():
    scores = PointScores(VALUES, np.zeros(5), n_optimal=0)
    assert len(take("tsds", scores)) == 0


@pytest.mark.parametrize(
    "text",
    [
        "", "tsd", "tsds:", "tsds:top", "tsds:top=", "tsds:top=0", "tsds:top=-1", "tsds:top=1.5",
        "tsds:top=" + "9" * 5000,
        "tsds:top=a", "tsds:bottom=0", "tsds:optimal=3", "tsds:best",
        "tsds:top=3/0.5", "random:k=3/0.5", "tsds:diverse",
        "tsds:diverse=3/0", "tsds:diverse=3/1.5", "tsds:diverse=3/.", "all/0.5",
        "uncertain", "uncertain:positive", "uncertain:optimal",
        "tsds:positive=x",
        "tsds:positive=1.2.3", "random", "random:k", "random:k=0", "random:n=5", "none:k=1",
        "all=3", "influences:top=3", "tsds top=3", "tsds:top=3,tsds", "tsds:top=\u0663",
    ],
)  # fmt: skip
def test_malformed_text_is_refused_in_one_line_that_names_the_forms(text):
    with pytest.raises(SettingsError) as caught:
        parse_selection(text)
    line = str(caught.value)
    assert repr(text) in line or not text
    assert FORMS in line
    assert "\n" not in line


@pytest.mark.parametrize("text", ["tsds:top=6", "tsds:bottom=6", "random:k=6"])
def test_more_points_than_the_pool_holds_are_refused(text):
    with pytest.raises(SettingsError, match="6 points of a pool of 5"):
        take(text)


def test_missing_or_unfit_scores_are_refused():
    with pytest.raises(ValuationError, match="needs the points' values"):
        take("tsds:positive", None)
    with pytest.raises(ValuationError, match="must have 6 rows"):
        take("tsds:positive", SCORES, 6)
    with pytest.raises(ValuationError, match="removal curve"):
        take("tsds", PointScores(VALUES, np.zeros(5)))
    with pytest.raises(ValuationError, match="removal curve keeps 9 of 5"):
        take("tsds", PointScores(VALUES, np.zeros(5), n_optimal=9))
    with pytest.raises(ValuationError, match="non-finite"):
        take("tsds:top=1", PointScores(VALUES * np.nan, np.zeros(5)))
    with pytest.raises(ValuationError, match="non-finite"):
        take("tsds:top=1", PointScores(VALUES, np.full(5, np.nan)))


def test_only_selections_by_value_need_scores():
    needs = {t: parse_selection(t).needs_scores for t in ("none", "all", "random:k=1", "tsds")}
    assert needs == {"none": False, "all": False, "random:k=1": False, "tsds": True}


@given(
    st.one_of(
        st.sampled_from(["none", "all", "optimal"]).map(Selection),
        st.builds(Selection, st.sampled_from(["random", "top", "bottom"]), st.integers(1, 10**6)),
        st.integers(0, 400).map(lambda z: Selection("positive", z=z / 100)),
    )
)
def test_the_text_of_a_selection_reads_back(selection):
    assert parse_selection(str(selection)) == selection


def test_a_bare_tsds_is_the_optimal_subset():
    assert str(parse_selection("tsds")) == "tsds:optimal"
