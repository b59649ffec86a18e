"""Masked views of molecules: written anew, of like length, their tokens hidden.

Devlin et al. 2019 (BERT): of the tokens to predict 80 % are masked, 10 % replaced by another token
and 10 % left as they are. Everything is drawn from (seed, epoch, window), so that any batch can be
made again, in any process. This runs in worker processes: it knows RDKit and numpy, and no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lipo_cli.chem.molecules import randomised_smiles
from lipo_cli.chem.tokens import split_tokens

WINDOW = 16
"""Batches that are made together, sorted by length among themselves."""
IGNORED = -100
"""The label of a slot that asks for nothing."""
MASKED, REPLACED = 0.8, 0.1

VIEWS, HELD_OUT, ORDER, SPLIT, DROPOUT = range(5)
"""What a random stream is for: no two uses share one."""


def stream(seed: int, purpose: int, *place: int) -> np.random.Generator:
    """Returns the random stream of one purpose at one place."""
    return np.random.default_rng([seed, purpose, *place])


@dataclass(frozen=True)
class MaskingSpec:
    """How molecules become masked batches.

    Attributes:
        vocabulary: Token -> id, special tokens included.
        bos: Id of `<bos>`; the next four are those of their tokens.
        share: Share of tokens to predict.
        clean: Share of molecules in which nothing is hidden.
        randomise: Share of molecules written as a random SMILES.
        max_length: Longest sequence in tokens; a random SMILES that is longer is not used.
        batch_size: Molecules per batch.
        pad_multiple: Batch lengths are rounded up to this.
        seed: Of everything drawn.
    """

    vocabulary: dict[str, int]
    bos: int
    eos: int
    pad: int
    mask: int
    unk: int
    share: float
    clean: float
    randomise: float
    max_length: int
    batch_size: int
    pad_multiple: int
    seed: int

    @cached_property
    def special(self) -> NDArray[np.int64]:
        """Ids that are never hidden and never put in place of another."""
        return np.array([self.bos, self.eos, self.pad, self.mask, self.unk], dtype=np.int64)

    @cached_property
    def ordinary(self) -> NDArray[np.int64]:
        """Ids of the tokens of molecules, ascending."""
        ids = np.array(sorted(self.vocabulary.values()), dtype=np.int64)
        return ids[~np.isin(ids, self.special)]

    def encode(self, smiles: str) -> list[int]:
        """Returns the ids of a molecule between `<bos>` and `<eos>`."""
        get, unk = self.vocabulary.get, self.unk
        return [self.bos, *[get(token, unk) for token in split_tokens(smiles)], self.eos]

    def n_slots(self, rows: int, length: int) -> int:
        """Returns how many predictions a batch [rows, length] holds, filled or not.

        It depends on the shape alone: on the CPU, kernels are compiled and kept per shape.
        """
        return rows * max(1, int(np.ceil(self.share * (length - 2))))


@dataclass(frozen=True)
class MaskedBatch:
    """A batch [rows, length] in which `slots` are to be predicted.

    Attributes:
        rows: Positions of the molecules in the corpus [rows].
        input_ids: Ids with tokens hidden [rows, length].
        lengths: Tokens of each row, bos and eos included [rows].
        slots: Places to predict, counted through the flattened batch [n_slots].
        labels: The ids that belong there, or `IGNORED` [n_slots].
    """

    rows: NDArray[np.int64]
    input_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    slots: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def n_asked(self) -> int:
        """How many tokens are to be predicted."""
        return int((self.labels != IGNORED).sum())


@dataclass(frozen=True)
class WindowTask:
    """A window of molecules to be made into batches."""

    spec: MaskingSpec
    rows: NDArray[np.int64]
    smiles: Sequence[str]
    epoch: int
    window: int


def prepare_window(task: WindowTask) -> list[MaskedBatch]:
    """Writes molecules anew, cuts batches of like length, and hides tokens."""
    spec = task.spec
    rng = stream(spec.seed, VIEWS, task.epoch, task.window)
    ids = [_written(text, spec, rng) for text in task.smiles]
    # Shuffled before the stable sort, so that equal lengths meet others in every epoch.
    order = rng.permutation(len(ids))
    order = order[np.argsort([len(ids[i]) for i in order], kind="stable")]
    batches = _cut(order, spec.batch_size)
    return [
        hide([ids[i] for i in batches[b]], task.rows[batches[b]], spec, rng)
        for b in rng.permutation(len(batches))
    ]


def held_out_batches(
    smiles: Sequence[str], rows: NDArray[np.int64], spec: MaskingSpec
) -> list[MaskedBatch]:
    """Returns batches of canonical SMILES with masks that depend on the seed alone."""
    rng = stream(spec.seed, HELD_OUT)
    ids = [spec.encode(text) for text in smiles]
    order = np.argsort([len(row) for row in ids], kind="stable")
    return [hide([ids[i] for i in b], rows[b], spec, rng) for b in _cut(order, spec.batch_size)]


def hide(
    ids: Sequence[Sequence[int]],
    rows: NDArray[np.int64],
    spec: MaskingSpec,
    rng: np.random.Generator,
) -> MaskedBatch:
    """Pads one batch and hides `share` of each molecule's tokens, at least one, or none."""
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    length = -(-int(lengths.max()) // spec.pad_multiple) * spec.pad_multiple
    inputs = np.full((len(ids), length), spec.pad, dtype=np.int64)
    for i, row in enumerate(ids):
        inputs[i, : len(row)] = row
    slots = _choose(inputs, spec, rng)
    flat = inputs.reshape(-1)
    truth = flat[slots]
    what = rng.random(len(slots))
    flat[slots[what < MASKED]] = spec.mask
    replaced = slots[(what >= MASKED) & (what < MASKED + REPLACED)]
    if len(spec.ordinary):
        flat[replaced] = rng.choice(spec.ordinary, len(replaced))
    n_slots = spec.n_slots(*inputs.shape)
    places = np.zeros(n_slots, dtype=np.int64)
    labels = np.full(n_slots, IGNORED, dtype=np.int64)
    places[: len(slots)] = slots
    labels[: len(slots)] = truth
    return MaskedBatch(np.asarray(rows), inputs, lengths, places, labels)


def _choose(
    inputs: NDArray[np.int64], spec: MaskingSpec, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws the places to predict: an exact share of the ordinary tokens of rows not clean."""
    ordinary = ~np.isin(inputs, spec.special)
    n_ordinary = ordinary.sum(axis=1)
    asked = (n_ordinary > 0) & (rng.random(len(inputs)) >= spec.clean)
    wanted = np.where(asked, np.maximum(1, np.rint(spec.share * n_ordinary)), 0)
    keys = np.where(ordinary, rng.random(inputs.shape), 2.0)
    rank = np.empty_like(inputs)
    np.put_along_axis(
        rank, np.argsort(keys, axis=1), np.arange(inputs.shape[1], dtype=np.int64)[None], axis=1
    )
    return np.flatnonzero(rank < wanted[:, None]).astype(np.int64)


def _written(smiles: str, spec: MaskingSpec, rng: np.random.Generator) -> list[int]:
    if rng.random() < spec.randomise:
        ids = spec.encode(randomised_smiles(smiles, rng))
        if len(ids) <= spec.max_length and spec.unk not in ids:
            return ids
    return spec.encode(smiles)


def _cut(order: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return [order[i : i + size] for i in range(0, len(order), size)]
