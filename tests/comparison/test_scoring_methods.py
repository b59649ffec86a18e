"""What scoring asks for before it starts."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from lipo_cli.comparison.scoring_methods import _check_room
from lipo_cli.errors import ValuationError


def test_a_removal_curve_without_room_is_refused_before_anything_is_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=8 * 2**30))
    _check_room(100_000, 336)  # 0.8 GiB
    with pytest.raises(ValuationError, match=r"about 18 GiB of memory.* has 8") as caught:
        _check_room(100_000, 8_000)
    assert "--fractions" in str(caught.value)
