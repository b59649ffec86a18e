"""What a table looks like at a glance: its labels, its token lengths, its repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from lipo_cli.chem.tables import MoleculeTable
from lipo_cli.chem.tokens import N_SPECIAL, split_tokens, unmatched


@dataclass(frozen=True)
class TokenLengths:
    """How long molecules are in tokens, `<bos>` and `<eos>` included.

    Attributes:
        mean: Mean length.
        median: Median length.
        p99: 99th percentile.
        longest: The longest.
        max_length: What the model reads.
        n_truncated: Molecules longer than that.
        n_unmatched: Molecules with characters that no token covers.
        distinct: Number of different tokens.
    """

    mean: float
    median: float
    p99: float
    longest: int
    max_length: int
    n_truncated: int
    n_unmatched: int
    distinct: int


@dataclass(frozen=True)
class TableDescription:
    """A table at a glance.

    Attributes:
        path: The file.
        sha256: Of its bytes.
        n_rows_read: Data rows in the file.
        n_bad_rows: Rows left out.
        n_molecules: Rows of the table.
        n_merged_rows: Rows merged into another of the same molecule.
        largest_label_spread: Largest difference of labels that were merged.
        n_skeletons: Molecules without regard to stereochemistry.
        n_stereo_groups: Groups of molecules that differ by stereochemistry only.
        label_mean: And the following: of the labels, NaN without any.
        label_sd: Standard deviation.
        label_min: Smallest.
        label_max: Largest.
        histogram: Label counts, as (lower edge, upper edge, count).
        tokens: Token lengths.
    """

    path: str
    sha256: str
    n_rows_read: int
    n_bad_rows: int
    n_molecules: int
    n_merged_rows: int
    largest_label_spread: float
    n_skeletons: int
    n_stereo_groups: int
    label_mean: float
    label_sd: float
    label_min: float
    label_max: float
    histogram: tuple[tuple[float, float, int], ...]
    tokens: TokenLengths

    def as_dict(self) -> dict[str, object]:
        """Returns everything as plain values."""
        return asdict(self)


def describe(table: MoleculeTable, *, max_length: int = 202, bins: int = 12) -> TableDescription:
    """Describes a table.

    Args:
        table: Molecules with labels.
        max_length: Tokens that the model reads, `<bos>` and `<eos>` included.
        bins: Of the label histogram.
    """
    labels = table.labels[np.isfinite(table.labels)]
    skeletons = [text for text in table.skeletons if text]
    _, sizes = np.unique(np.array(skeletons, dtype=object), return_counts=True)
    known = labels if len(labels) else np.array([np.nan])
    return TableDescription(
        path=str(table.path),
        sha256=table.sha256,
        n_rows_read=table.n_rows_read,
        n_bad_rows=len(table.bad_rows),
        n_molecules=len(table),
        n_merged_rows=table.n_merged_rows,
        largest_label_spread=float(table.frame["label_spread"].max()),
        n_skeletons=len(sizes),
        n_stereo_groups=int((sizes > 1).sum()),
        label_mean=float(known.mean()),
        label_sd=float(known.std()),
        label_min=float(known.min()),
        label_max=float(known.max()),
        histogram=_histogram(labels, bins),
        tokens=token_lengths([text for text in table.smiles if text], max_length),
    )


def token_lengths(smiles: Sequence[str], max_length: int) -> TokenLengths:
    """Counts tokens per molecule as the published MoLFormer tokenizer splits SMILES."""
    tokens = [split_tokens(text) for text in smiles]
    lengths = np.array([len(found) + N_SPECIAL for found in tokens] or [0])
    return TokenLengths(
        mean=float(lengths.mean()),
        median=float(np.median(lengths)),
        p99=float(np.percentile(lengths, 99)),
        longest=int(lengths.max()),
        max_length=max_length,
        n_truncated=int((lengths > max_length).sum()),
        n_unmatched=sum(bool(unmatched(text)) for text in smiles),
        distinct=len({token for found in tokens for token in found}),
    )


def _histogram(labels: npt.NDArray[np.float64], bins: int) -> tuple[tuple[float, float, int], ...]:
    if len(labels) == 0:
        return ()
    counts, edges = np.histogram(labels, bins=bins)
    return tuple(
        (float(low), float(high), int(count))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    )
