"""Where and how exactly a model computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lipo_cli.errors import SettingsError
from lipo_cli.model.heads import RegressionHead
from lipo_cli.model.precision import autocast, has_bf16, pick_device
from tests.fixtures.models import SMILES, disturb, tiny_config, tiny_regressor

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "wanted"),
    [
        ("float32", torch.float32),
        ("bf16", torch.bfloat16),
        ("auto", torch.bfloat16 if has_bf16(CPU) else torch.float32),
    ],
)
def test_products_have_the_precision_asked_for(precision: str, wanted: torch.dtype) -> None:
    square = torch.ones(4, 4)
    with autocast(CPU, precision):
        assert (square @ square).dtype == wanted


def test_float32_holds_inside_another_autocast() -> None:
    square = torch.ones(4, 4)
    with autocast(CPU, "bf16"), autocast(CPU, "float32"):
        assert (square @ square).dtype == torch.float32


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_missing_device_is_one_line() -> None:
    assert pick_device("auto") == pick_device("cpu") == CPU
    with pytest.raises(SettingsError, match="no CUDA device"):
        pick_device("cuda")


def test_bf16_predicts_nearly_what_float32_does(tiny: Path) -> None:
    predicted = []
    for precision in ("float32", "bf16"):
        regressor = tiny_regressor(tiny, precision=precision)
        disturb(regressor)
        predicted.append(regressor.predict(SMILES))
        assert predicted[-1].dtype == np.float64
    exact, rounded = predicted
    assert not np.array_equal(exact, rounded)
    assert np.sqrt(np.mean((exact - rounded) ** 2)) < 0.05 * exact.std()


def test_the_head_is_never_rounded_to_half_precision() -> None:
    head = RegressionHead(tiny_config()).eval()
    pooled = torch.randn(16, tiny_config().hidden_size)
    with torch.inference_mode():
        exact = head(pooled)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(head(pooled), exact)
