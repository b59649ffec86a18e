"""One answer of an audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]
Figures = dict[str, float | int | None]


@dataclass(frozen=True)
class Finding:
    """What one question about a secondary set was answered.

    Attributes:
        name: The question, in a few words.
        value: The answer, short, with its figures.
        level: `ok`; `warn`: look at it; `fail`: the set misleads if used as it is.
        explanation: What it means, one sentence.
    """

    name: str
    value: str
    level: Level
    explanation: str


def level_of(value: float, *, warn: float, fail: float = float("inf")) -> Level:
    """Returns the level of a figure that is worse the larger it is."""
    return "fail" if value >= fail else "warn" if value >= warn else "ok"
