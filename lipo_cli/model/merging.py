"""Adapters inside the weights while a model only reads: as fast as one without adapters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn


@dataclass
class _Merge:
    """A model whose adapters are in its weights, and who reads it."""

    layers: list[Any]
    own: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)
    readers: int = 0

    def do(self) -> None:
        """Puts every layer's adapter into a copy of its weights."""
        of_layer = [list(layer.get_base_layer().parameters()) for layer in self.layers]
        every = [parameter for some in of_layer for parameter in some]
        if len({id(parameter) for parameter in every}) < len(every):
            self.layers = []  # weights that two layers share have no place for two adapters
            return
        for layer, some in zip(self.layers, of_layer, strict=True):
            for parameter in some:
                self.own.append((parameter, parameter.data))
                parameter.data = parameter.data.clone()
            layer.merge()

    def undo(self) -> None:
        """Puts the weights themselves back."""
        for parameter, data in self.own:
            parameter.data = data
        for layer in self.layers:
            layer.merged_adapters.clear()


WORTH_MERGING = 64
"""Sequences from which on it pays: merging takes as long as some ten of them."""

_merges: WeakKeyDictionary[nn.Module, _Merge] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def merged(model: nn.Module) -> Iterator[None]:
    """Adds LoRA's products to the weights, or multiplies them by IA3's factors, and undoes it.

    PEFT's own way back subtracts or divides, which leaves other bits than before; here the weights
    themselves are put back, so that training goes on as if nothing had been. Several threads may
    read a model at once (a server does): the first merges, the last one undoes it.

    Args:
        model: Any network; one without PEFT's wrapper is left as it is, and so is one whose
            adapters share weights.
    """
    if not isinstance(model, PeftModel):
        yield
        return
    with _lock:
        merge = _merges.get(model)
        if merge is None:
            layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
            merge = _Merge(layers)
            try:
                merge.do()
            except BaseException:
                merge.undo()
                raise
            _merges[model] = merge
        merge.readers += 1
    try:
        yield
    finally:
        with _lock:
            merge.readers -= 1
            if merge.readers == 0:
                merge.undo()
                del _merges[model]
