"""SMILES tokens by the published MoLFormer pattern (Schwaller et al. 2018), without torch."""

from __future__ import annotations

import re

SMILES_PATTERN = (
    r"(\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|\/|:|~|@|\?|>|\*|\$|"
    r"\%[0-9]{2}|[0-9])"
)
N_SPECIAL = 2
"""`<bos>` and `<eos>`: what a molecule's length in tokens counts beside its own."""

_TOKEN = re.compile(SMILES_PATTERN)


def split_tokens(smiles: str) -> list[str]:
    """Splits SMILES into tokens; what the pattern does not match is left out (see `unmatched`)."""
    return _TOKEN.findall(smiles)


def unmatched(smiles: str) -> str:
    """Returns the characters that no token covers: the tokenizer would drop them silently."""
    return _TOKEN.sub("", smiles)
