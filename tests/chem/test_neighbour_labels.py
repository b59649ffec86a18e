from itertools import combinations

import numpy as np
import pytest

from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits, squared_distances
from lipo_cli.chem.neighbour_labels import (
    decimals,
    find_neighbour_rule,
    reachable_sums,
    rows_that_use,
)

SMILES = ["CCO", "c1ccccc1O", "CC(=O)Nc1ccc(O)cc1", "C1CCNCC1", "CCN(CC)CC", "c1ccc2[nH]ccc2c1"]


def test_fingerprint_distances_are_rdkits() -> None:
    from rdkit import Chem, DataStructs
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(smiles)) for smiles in SMILES]
    dense = np.array([list(fingerprint) for fingerprint in prints])
    bits = morgan_bits(SMILES)
    expected = ((dense[:3, None, :] - dense[None, :, :]) ** 2).sum(axis=2)
    assert (squared_distances(bits[:3], bits) == expected).all()
    similar = highest_tanimoto(bits[:2], bits[2:])
    for row in range(2):
        known = max(DataStructs.TanimotoSimilarity(prints[row], other) for other in prints[2:])
        assert similar[row] == pytest.approx(known)


def test_reachable_sums_are_those_of_all_combinations() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        values = rng.integers(0, 40, size=7).tolist()
        n = int(rng.integers(0, 5))
        sums = {sum(chosen) for chosen in combinations(values, n)}
        found = reachable_sums(values, n)
        assert {i for i in range(found.bit_length()) if found >> i & 1} == sums


@pytest.mark.parametrize(
    ("values", "places"), [([1, 2], 0), ([0.1, 2], 1), ([1.548, 0.1], 3), ([1 / 3, 1], 6)]
)
def test_decimals(values: list[float], places: int) -> None:
    assert decimals(np.array(values)) == places


def test_rows_that_use_a_marked_row_are_those_of_all_choices_among_ties() -> None:
    rng = np.random.default_rng(1)
    distances = rng.integers(0, 5, size=(40, 9))
    marked = rng.random(9) < 0.3
    k = 3
    fewest = most = 0
    for row in distances:
        best = min(sum(row[list(chosen)]) for chosen in combinations(range(9), k))
        uses = [
            any(marked[list(chosen)])
            for chosen in combinations(range(9), k)
            if sum(row[list(chosen)]) == best
        ]
        fewest += all(uses)
        most += any(uses)
    assert rows_that_use(distances, marked, k) == (fewest, most)


@pytest.fixture
def world() -> tuple[np.ndarray, np.ndarray]:
    """Distances of 80 secondary to 300 primary rows, some tied, and primary labels."""
    rng = np.random.default_rng(2)
    return rng.integers(20, 400, size=(80, 300)), np.round(rng.normal(2, 1, 300), 2)


def rule_of(distances: np.ndarray, labels: np.ndarray, primary: np.ndarray):  # type: ignore[no-untyped-def]
    marked = np.zeros(len(primary), dtype=bool)
    return find_neighbour_rule(distances, labels, primary, in_val=marked, in_test=marked, seed=0)


@pytest.mark.parametrize("k", [1, 3, 5, 10])
def test_planted_rule_is_found_with_ties_resolved_either_way(
    world: tuple[np.ndarray, np.ndarray], k: int
) -> None:
    distances, primary = world
    rng = np.random.default_rng(3)
    # Ties go to a random neighbour, as in a library that says nothing about them.
    order = np.lexsort((rng.random(distances.shape), distances), axis=1)[:, :k]
    labels = np.round(primary[order].mean(axis=1), 6)
    rule = rule_of(distances, labels, primary)
    assert rule.k == k
    assert rule.n_matched == rule.n_unambiguous
    assert rule.n_ambiguous_matched == rule.n_rows - rule.n_unambiguous
    assert rule.p_value < 1e-12


def test_rule_with_rounded_labels_is_found(world: tuple[np.ndarray, np.ndarray]) -> None:
    distances, primary = world
    order = np.argsort(distances, axis=1, kind="stable")[:, :4]
    rule = rule_of(distances, np.round(primary[order].mean(axis=1), 1), primary)
    assert rule.k == 4
    assert rule.share > 0.95


def test_share_of_computed_rows_is_found_among_measured_ones(
    world: tuple[np.ndarray, np.ndarray],
) -> None:
    distances, primary = world
    order = np.argsort(distances, axis=1, kind="stable")[:, :5]
    labels = np.round(np.random.default_rng(4).normal(2, 1, 80), 2)
    labels[::4] = primary[order[::4]].mean(axis=1)
    rule = rule_of(distances, labels, primary)
    assert rule.k == 5
    assert rule.p_value < 1e-12


def test_measured_labels_match_no_rule(world: tuple[np.ndarray, np.ndarray]) -> None:
    distances, primary = world
    for seed in range(10):
        labels = np.round(np.random.default_rng(seed).normal(2, 1, 80), 2)
        rule = rule_of(distances, labels, primary)
        assert rule.p_value > 1e-3


def test_labels_of_a_wide_range_and_many_decimals_take_no_minutes() -> None:
    rng = np.random.default_rng(0)
    distances = rng.integers(5, 9, size=(300, 400))  # nearly every row has ties
    rule = rule_of(distances, rng.uniform(0, 1e5, 300).round(5), rng.uniform(0, 1e5, 400).round(5))
    assert rule is None or rule.n_ambiguous_matched == 0
