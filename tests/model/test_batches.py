"""Batching by length: nothing lost, nothing twice, little padding."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lipo_cli.model.batches import PAD_MULTIPLE, batches_in_order, collate, shuffled_batches

LENGTHS = st.lists(st.integers(2, 202), min_size=1, max_size=300)


def lengths_like_molecules(n: int, rng: np.random.Generator) -> list[int]:
    """Lengths as in measured logD data: mean about 47 tokens, 99 % below about 80."""
    return [int(x) for x in np.clip(rng.normal(47, 14, n), 5, 202)]


def padded_share(lengths: list[int], batches: list[np.ndarray]) -> float:
    rows = [collate([[5] * lengths[i] for i in batch], 2).attention_mask for batch in batches]
    return 1 - sum(int(mask.sum()) for mask in rows) / sum(mask.numel() for mask in rows)


@settings(max_examples=80, deadline=None)
@given(
    lengths=LENGTHS, size=st.integers(1, 64), seed=st.integers(0, 1000), window=st.integers(1, 9)
)
def test_every_position_comes_exactly_once(
    lengths: list[int], size: int, seed: int, window: int
) -> None:
    rng = np.random.default_rng(seed)
    for batches in (
        batches_in_order(lengths, size),
        shuffled_batches(lengths, size, rng, window=window),
    ):
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(1 <= len(batch) <= size for batch in batches)
        assert len(batches) == -(-len(lengths) // size)


@settings(max_examples=50, deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 32))
def test_prediction_batches_rise_in_length(lengths: list[int], size: int) -> None:
    ordered = [lengths[i] for batch in batches_in_order(lengths, size) for i in batch]
    assert ordered == sorted(lengths)


def test_batches_are_sorted_within_their_window() -> None:
    rng = np.random.default_rng(0)
    lengths = lengths_like_molecules(256, rng)
    batches = shuffled_batches(lengths, 8, rng, window=100)
    rows = [[lengths[i] for i in batch] for batch in batches]
    assert all(row == sorted(row) for row in rows)
    rows.sort(key=lambda row: (row[0], row[-1]))
    assert all(a[-1] <= b[0] for a, b in itertools.pairwise(rows))


def test_windows_hold_rows_that_the_shuffle_put_together() -> None:
    lengths = list(range(64))
    rng = np.random.default_rng(7)
    order = np.random.default_rng(7).permutation(64)
    batches = shuffled_batches(lengths, 4, rng, window=4)
    windows = [set(order[i : i + 16].tolist()) for i in range(0, 64, 16)]
    for batch in batches:
        assert sum(set(batch.tolist()) <= window for window in windows) == 1


def test_epochs_differ_and_seeds_repeat() -> None:
    lengths = lengths_like_molecules(200, np.random.default_rng(0))
    flat = [
        np.concatenate(shuffled_batches(lengths, 16, np.random.default_rng(seed))).tolist()
        for seed in (1, 1, 2)
    ]
    assert flat[0] == flat[1]
    assert flat[0] != flat[2]


def test_batches_come_in_random_order_of_length() -> None:
    rng = np.random.default_rng(3)
    lengths = lengths_like_molecules(1024, rng)
    batches = shuffled_batches(lengths, 32, rng)
    means = [float(np.mean([lengths[i] for i in batch])) for batch in batches]
    rising = sum(a < b for a, b in itertools.pairwise(means))
    assert 0.25 * len(means) < rising < 0.75 * len(means)


def test_padding_takes_a_small_share() -> None:
    rng = np.random.default_rng(0)
    lengths = lengths_like_molecules(3024, rng)
    share = padded_share(lengths, shuffled_batches(lengths, 32, rng))
    unsorted = padded_share(lengths, [np.arange(i, min(i + 32, 3024)) for i in range(0, 3024, 32)])
    assert share < 0.2  # most of it is the rounding up to a multiple of 8
    assert share < unsorted / 2


@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 100), min_size=1, max_size=12))
def test_collate_pads_to_the_next_multiple(lengths: list[int]) -> None:
    rows = [list(range(5, 5 + n)) for n in lengths]
    batch = collate(rows, 2)
    width = batch.input_ids.shape[1]
    assert width % PAD_MULTIPLE == 0, "the CPU's bf16 kernels are compiled per shape"
    assert max(lengths) <= width < max(lengths) + PAD_MULTIPLE
    for i, row in enumerate(rows):
        assert batch.input_ids[i, : len(row)].tolist() == row
        assert batch.input_ids[i, len(row) :].tolist() == [2] * (width - len(row))
        assert batch.attention_mask[i].tolist() == [1] * len(row) + [0] * (width - len(row))
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
