"""Where a model computes, with how many threads, and with how many bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from lipo_cli.errors import SettingsError, TrainingError


def pick_device(name: str) -> torch.device:
    """Returns the device of `auto`, `cpu` or `cuda`.

    Raises:
        SettingsError: cuda is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("no CUDA device here", where="--device", hint="use cpu or auto")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


_NO_MEMORY = ("out of memory", "not enough memory", "allocate memory", "alloc_failed")


def is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    """Says whether an error means that memory ran out.

    CUDA has a class of its own for it; the CPU's allocator and the CUDA libraries raise a plain
    RuntimeError that says so.
    """
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(phrase in str(error).lower() for phrase in _NO_MEMORY)


@contextmanager
def out_of_memory_as_one_line(where: str, hint: str) -> Iterator[None]:
    """Turns the errors of torch that mean so into one line for the user; others pass.

    Raises:
        TrainingError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError("memory ran out", where=where, hint=hint) from error


def has_bf16(device: torch.device) -> bool:
    """Says whether the device multiplies bf16 in hardware; emulation would be slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch offers no public question for this; oneDNN's bf16 kernels need AVX512-BF16 or AMX.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the autocast context for `auto`, `float32` or `bf16`."""
    enabled = precision == "bf16" or (precision == "auto" and has_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


@contextmanager
def threads_of(n: int) -> Iterator[None]:
    """Takes one n-th of this process's threads inside the block: n such stand side by side."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // n))
    try:
        yield
    finally:
        torch.set_num_threads(before)
