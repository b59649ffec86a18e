"""The SMILES tokenizer of MoLFormer, as a fast tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from lipo_cli.chem.tokens import SMILES_PATTERN, split_tokens, unmatched
from lipo_cli.errors import ModelError

SPECIAL = ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")
_AT_ONCE = 1_000
"""Molecules that the tokenizer is given at a time."""


class MolformerTokenizer(PreTrainedTokenizerFast):
    """Splits SMILES by the published pattern; `<bos>` first, `<eos>` last, no fixed padding.

    Published files may carry padding and truncation to 128: both are switched off at loading, as
    batches are padded to their own length here.
    """

    model_input_names = ("input_ids", "attention_mask")

    def __init__(
        self,
        *args: object,
        bos_token: str = "<bos>",
        eos_token: str = "<eos>",
        pad_token: str = "<pad>",
        mask_token: str = "<mask>",
        unk_token: str = "<unk>",
        **kwargs: object,
    ) -> None:
        kwargs.setdefault("clean_up_tokenization_spaces", False)
        super().__init__(
            *args,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            mask_token=mask_token,
            unk_token=unk_token,
            **kwargs,
        )
        self.backend_tokenizer.no_padding()
        self.backend_tokenizer.no_truncation()

    @classmethod
    def convert_to_native_format(cls, **kwargs: object) -> dict[str, object]:
        """Leaves `tokenizer.json` to `__init__`.

        transformers would take the vocabulary alone from the file of a class with an `__init__` of
        its own, and split by byte-pair merges: `[C@H]` would silently become `C`.
        """
        kwargs.pop("trust_remote_code", None)
        return kwargs


def build_tokenizer(smiles: Iterable[str], *, min_count: int = 1) -> MolformerTokenizer:
    """Makes a tokenizer whose vocabulary is every token seen at least `min_count` times.

    Tokens are ordered by falling count, then alphabetically, so that equal data gives equal ids.
    """
    counts: dict[str, int] = {}
    for text in smiles:
        for token in split_tokens(text):
            counts[token] = counts.get(token, 0) + 1
    kept = sorted((t for t, n in counts.items() if n >= min_count), key=lambda t: (-counts[t], t))
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *kept))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(
        Regex(SMILES_PATTERN), behavior="removed", invert=True
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    return MolformerTokenizer(tokenizer_object=backend)


def load_tokenizer(folder: Path, vocab_size: int | None = None) -> MolformerTokenizer:
    """Loads `tokenizer.json` of a folder.

    Args:
        folder: A checkpoint folder or a saved regressor.
        vocab_size: How many embeddings the model has, when that is to be checked.

    Raises:
        ModelError: there is none, it is not a tokenizer with the special tokens of MoLFormer, or
            it has tokens that the model has no embedding for.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ModelError(
            "no tokenizer.json",
            where=folder,
            hint="a checkpoint folder holds one beside its weights",
        )
    try:
        tokenizer = MolformerTokenizer(tokenizer_file=str(file))
        known = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    except Exception as error:  # tokenizers raises bare Exception on malformed files
        raise ModelError("tokenizer.json cannot be read", where=file, hint=str(error)) from None
    missing = [token for token in SPECIAL[:4] if token not in known]
    if missing:
        raise ModelError(f"special tokens {', '.join(missing)} are missing", where=file)
    if vocab_size is not None:
        check_vocabulary(tokenizer, vocab_size, file)
    return tokenizer


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, vocab_size: int, file: Path) -> None:
    """Compares a tokenizer with the number of embeddings.

    Raises:
        ModelError: it has tokens that the model has no embedding for.
    """
    largest = max(tokenizer.get_vocab().values(), default=0)
    if largest >= vocab_size:
        raise ModelError(
            f"it has tokens up to {largest}, the model has embeddings for {vocab_size}",
            where=file,
            hint="is this the tokenizer of another model?",
        )


@dataclass(frozen=True)
class Encoded:
    """Token ids without padding, and what the model does not see of the molecules.

    Attributes:
        ids: One row per molecule, bos and eos included.
        n_truncated: Molecules that were cut to the longest sequence the model reads.
        n_unknown: Molecules with a token the vocabulary lacks, or with characters that are no
            token at all and were dropped; counted before the cut.
    """

    ids: list[list[int]]
    n_truncated: int = 0
    n_unknown: int = 0


def encode(tokenizer: PreTrainedTokenizerFast, smiles: Sequence[str], max_length: int) -> Encoded:
    """Encodes SMILES to at most `max_length` ids each, bos and eos included."""
    native = isinstance(tokenizer, MolformerTokenizer)
    unknown = tokenizer.unk_token_id
    ids: list[list[int]] = []
    n_truncated = n_unknown = 0
    # What the tokenizer says beside the ids is a gigabyte of 100,000 molecules.
    for start in range(0, len(smiles), _AT_ONCE):
        some = list(smiles[start : start + _AT_ONCE])
        encoded = tokenizer(some, add_special_tokens=True)
        rows: list[list[int]] = encoded["input_ids"]
        for i, (text, row) in enumerate(zip(some, rows, strict=True)):
            dropped = (
                unmatched(text) if native else _has_gap(encoded.encodings[i].offsets, len(text))
            )
            n_unknown += unknown in row or bool(dropped)
            if len(row) > max_length:
                rows[i] = [*row[: max_length - 1], row[-1]]
                n_truncated += 1
        ids += rows
    return Encoded(ids, n_truncated, n_unknown)


def _has_gap(offsets: Sequence[tuple[int, int]], length: int) -> bool:
    """Says whether some of the characters 0 to length are in no token."""
    reached = 0
    for start, stop in offsets:
        if start > reached:
            return True
        reached = max(reached, stop)
    return reached < length
