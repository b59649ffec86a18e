"""Selections written as text, such as `tsds:top=100` or `random:k=50`.

| text | the points |
|---|---|
| `none` | no point (the control) |
| `all` | every point (the control) |
| `random:k=K` | K points drawn at random, seeded (the control) |
| `M`, `M:optimal` | as many of the highest values as the cross-fitted removal curve says |
| `M:positive`, `M:positive=Z` | value > 0, or value - Z standard errors > 0 |
| `M:top=K`, `M:bottom=K` | the K highest or lowest values |
| `M:diverse=K`, `M:diverse=K/CAP` | the K highest values of which no two are more alike than CAP |

M is the method that values the points: `tsds` (TS-DShapley), `influence` (influence functions),
`knn` (KNN-Shapley), `loo` (leave-one-out on the ridge proxy), `uncertain` (how unsure the model is
of a point: no value, so that `optimal` and `positive` have no meaning). CAP is a Tanimoto
similarity of Morgan fingerprints, 0.6 where none is given.
"""

from __future__ import annotations

import math
import re

from lipo_cli.errors import SettingsError
from lipo_cli.settings import SCORING_METHODS
from lipo_cli.valuation.diversity import CAP
from lipo_cli.valuation.selection import Selection

FORMS = (
    "none, all, random:k=K, tsds, tsds:optimal, tsds:positive, tsds:positive=Z, "
    "tsds:top=K, tsds:bottom=K, tsds:diverse=K, tsds:diverse=K/CAP; influence, knn or loo in the "
    "place of tsds; uncertain:top=K, uncertain:bottom=K, uncertain:diverse=K"
)
"""The valid forms, as error messages and help pages name them."""

_FORM = re.compile(
    r"(?P<method>[a-z]+)(:(?P<rule>[a-z]+)(=(?P<number>[0-9.]+)(/(?P<cap>[0-9.]+))?)?)?"
)


def parse_selection(text: str) -> Selection:
    """Reads a selection; the module's table lists the forms.

    Raises:
        SettingsError: the text is none of the forms.
    """
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise _malformed(text, "is no selection")
    method, rule, number = match["method"], match["rule"], match["number"]
    if match["cap"] is not None and rule != "diverse":
        raise _malformed(text, "is no selection")
    if method in ("none", "all") and rule is None:
        return Selection("none" if method == "none" else "all")
    if method == "random" and rule == "k":
        return Selection("random", count=_count(text, number))
    valued = next((known for known in SCORING_METHODS if known == method), None)
    if valued == "uncertain" and rule in (None, "optimal", "positive"):
        raise _malformed(text, "has no meaning: how unsure the model is of a point is no value")
    if valued is not None:
        if rule in (None, "optimal") and number is None:
            return Selection("optimal", method=valued)
        if rule == "positive":
            return Selection("positive", z=_threshold(text, number), method=valued)
        if rule == "top":
            return Selection("top", count=_count(text, number), method=valued)
        if rule == "bottom":
            return Selection("bottom", count=_count(text, number), method=valued)
        if rule == "diverse":
            cap = CAP if match["cap"] is None else _cap(text, match["cap"])
            return Selection("diverse", count=_count(text, number), method=valued, cap=cap)
    raise _malformed(text, "is no selection")


def _count(text: str, number: str | None) -> int:
    if number is None or not number.isdecimal() or len(number) > 9 or int(number) == 0:
        raise _malformed(text, "needs a whole number of points, 1 or more")
    return int(number)


def _threshold(text: str, number: str | None) -> float:
    if number is None:
        return 0.0
    try:
        z = float(number)
    except ValueError:
        raise _malformed(text, "needs a number of standard errors") from None
    if not math.isfinite(z):
        raise _malformed(text, "needs a finite number of standard errors")
    return z


def _cap(text: str, number: str) -> float:
    try:
        cap = float(number)
    except ValueError:
        cap = math.nan
    if not 0 < cap <= 1:
        raise _malformed(text, "needs a similarity above 0 and at most 1")
    return cap


def _malformed(text: str, what: str) -> SettingsError:
    return SettingsError(f"{text!r} {what}", where="selection", hint=f"valid: {FORMS}")
