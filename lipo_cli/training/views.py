"""The endless stream of masked batches of a corpus, which can be entered at any batch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator, Iterator

import numpy as np
from numpy.typing import NDArray

from lipo_cli.training.corpus import Corpus
from lipo_cli.training.masking import (
    ORDER,
    SPLIT,
    WINDOW,
    MaskedBatch,
    MaskingSpec,
    WindowTask,
    prepare_window,
    stream,
)
from lipo_cli.training.workers import ordered_map

Positions = NDArray[np.int64]


def hold_out(n: int, share: float | None, seed: int) -> tuple[Positions, Positions]:
    """Returns positions to train on and positions held out, ascending.

    Without a share, 1 % is held out: at least 200 molecules or a tenth, at most 5,000.
    """
    few = min(max(n // 100, min(200, n // 10)), 5_000)
    count = few if share is None else round(n * share)
    count = min(max(count, 1), n - 1)
    order = stream(seed, SPLIT).permutation(n).astype(np.int64)
    return np.sort(order[count:]), np.sort(order[:count])


class Views:
    """Masked batches of the training molecules, epoch after epoch.

    Attributes:
        n_batches: Batches in an epoch.
    """

    def __init__(
        self,
        corpus: Corpus,
        positions: Positions,
        spec: MaskingSpec,
        workers: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._corpus = corpus
        self._positions = positions
        self._spec = spec
        self._workers = workers
        self._check = check
        self.n_batches = math.ceil(len(positions) / spec.batch_size)

    def batches(self, start: int) -> Generator[MaskedBatch, None, None]:
        """Yields batches without end, from batch `start`, counted from the first epoch's first."""
        epoch, batch = divmod(start, self.n_batches)
        window, skipped = divmod(batch, WINDOW)
        windows = ordered_map(
            prepare_window, self._tasks(epoch, window), self._workers, self._check
        )
        try:
            flat = itertools.chain.from_iterable(windows)
            yield from itertools.islice(flat, skipped, None)
        finally:
            windows.close()

    def _tasks(self, epoch: int, window: int) -> Iterator[WindowTask]:
        size = WINDOW * self._spec.batch_size
        n_windows = math.ceil(len(self._positions) / size)
        for e in itertools.count(epoch):
            order = stream(self._spec.seed, ORDER, e).permutation(self._positions)
            for w in range(window if e == epoch else 0, n_windows):
                rows = order[w * size : (w + 1) * size]
                smiles = [self._corpus.smiles(i) for i in rows.tolist()]
                yield WindowTask(self._spec, rows, smiles, e, w)
