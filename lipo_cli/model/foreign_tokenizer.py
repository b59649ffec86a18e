"""The tokenizer of an encoder that is no MoLFormer, as one `tokenizer.json`."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from lipo_cli.errors import ModelError
from lipo_cli.model.base import VOCABULARY_FILES
from lipo_cli.model.tokenizer import check_vocabulary


def load_foreign_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """Loads `tokenizer.json` of a folder, or builds one from the vocabulary files beside it.

    Args:
        folder: A checkpoint folder or a saved regressor.
        vocab_size: How many embeddings the model has.

    Raises:
        ModelError: there is none, it cannot be read without somebody's code, or it has tokens that
            the model has no embedding for.
    """
    file = folder / "tokenizer.json"
    if not file.is_file() and not any((folder / name).is_file() for name in VOCABULARY_FILES):
        raise ModelError(
            "no tokenizer.json", where=folder, hint="nor vocab.txt, nor vocab.json with merges.txt"
        )
    try:
        # As it stands: transformers 5 would rebuild the splitting of a class that it knows from
        # the vocabulary alone.
        backend = Tokenizer.from_file(str(file)) if file.is_file() else _from_vocabulary(folder)
        model = json.loads(backend.to_str())["model"]
    except Exception as error:  # tokenizers raises bare Exception on malformed files
        raise ModelError(
            "the tokenizer cannot be read (code from a hub is never run)",
            where=folder,
            hint=f"{type(error).__name__}: {error}",
        ) from None
    backend.no_padding()
    backend.no_truncation()
    unknown = model.get("unk_token")
    if (position := model.get("unk_id")) is not None:  # Unigram's
        unknown = model["vocab"][position][0]
    if unknown is not None and backend.token_to_id(unknown) is None:
        unknown = None
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=unknown)
    check_vocabulary(tokenizer, vocab_size, file)
    return tokenizer


def _from_vocabulary(folder: Path) -> Tokenizer:
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    return tokenizer.backend_tokenizer
