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
class _Readers:
    """Who reads a model, and whether its adapters are in its weights meanwhile."""

    layers: list[Any]
    own: list[tuple[nn.Parameter, Tensor]] = field(default_factory=list)
    merged: bool = False
    count: int = 0

    def merge(self) -> None:
        """Puts every layer's adapter into a copy of its weights."""
        of_layer = [list(layer.get_base_layer().parameters()) for layer in self.layers]
        every = [parameter for some in of_layer for parameter in some]
        if len({id(parameter) for parameter in every}) < len(every):
            return  # weights that two layers share have no place for two adapters
        self.merged = True
        for layer, some in zip(self.layers, of_layer, strict=True):
            for parameter in some:
                self.own.append((parameter, parameter.data))
                parameter.data = parameter.data.clone()
            layer.merge()

    def undo(self) -> None:
        """Puts the weights themselves back, if a merge has replaced them."""
        for parameter, data in self.own:
            parameter.data = data
        for layer in self.layers if self.merged else ():
            layer.merged_adapters.clear()


WORTH_MERGING = 64
"""Sequences from which on it pays: merging takes as long as some ten of them."""

_readers: WeakKeyDictionary[nn.Module, _Readers] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def reading(model: nn.Module, n_sequences: int) -> Iterator[None]:
    """Lets a model be read, with its adapters in its weights where that pays and nobody is harmed.

    LoRA's products are added to the weights, IA3's factors multiplied in. PEFT's own way back
    subtracts or divides, which leaves other bits than before; here the weights themselves are put
    back, so that training goes on as if nothing had been. Several threads may read a model at once
    (a server does), few sequences and many: the first one that many sequences pay for merges, and
    the last of all undoes it. Weights that somebody reads are never changed: beside a reader who
    came before, one with many sequences takes the adapter's layers, too.

    Args:
        model: Any network; one without PEFT's wrapper is left as it is, and so is one whose
            adapters share weights.
        n_sequences: How many will be read.
    """
    if not isinstance(model, PeftModel):
        yield
        return
    with _lock:
        readers = _readers.get(model)
        if readers is None:
            layers = [each for each in model.modules() if isinstance(each, BaseTunerLayer)]
            readers = _Readers(layers)
            if n_sequences >= WORTH_MERGING:
                try:
                    readers.merge()
                except BaseException:
                    readers.undo()
                    raise
            _readers[model] = readers
        readers.count += 1
    try:
        yield
    finally:
        with _lock:
            readers.count -= 1
            if readers.count == 0:
                readers.undo()
                del _readers[model]
