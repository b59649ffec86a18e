"""Adapters inside the weights while a model only reads: as fast as one without adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Adds LoRA's products to the weights, or multiplies them by IA3's factors, and undoes it.

    PEFT's own way back subtracts or divides, which leaves other bits than before; here the weights
    themselves are put back, so that training goes on as if nothing had been.

    Args:
        model: Any network; one without PEFT's wrapper is left as it is.
    """
    layers: list[Any] = []
    if isinstance(model, PeftModel):
        layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
    own: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for layer in layers:
            for parameter in layer.get_base_layer().parameters():
                own.append((parameter, parameter.data))
                parameter.data = parameter.data.clone()
            layer.merge()
        yield
    finally:
        for parameter, data in own:
            parameter.data = data
        for layer in layers:
            layer.merged_adapters.clear()
