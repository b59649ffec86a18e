"""Several processes that pretrain together, one to a GPU: `accelerate launch` or `torchrun`.

The batches of a step are dealt out to the processes and their gradients summed, so that a run on
four GPUs takes the same steps as one on a single GPU with as many `accumulate`d batches; sums of
floating-point numbers in another order are the only difference.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from datetime import timedelta

import torch
from torch import nn

from lipo_cli.errors import SettingsError


def is_first() -> bool:
    """Says whether this process reports for all."""
    return os.environ.get("RANK", "0") == "0"


class Ranks:
    """This process among those of the run; alone unless a launcher started several.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.
        device: The device of this process, where a launcher gave it one; else None.
    """

    def __init__(self, device: str) -> None:
        self.rank = int(os.environ.get("RANK", "0"))
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.device: torch.device | None = None
        if self.size > 1:
            from accelerate import PartialState

            self._state = PartialState(
                # The others wait while the first reads the molecules and computes descriptors.
                cpu=device == "cpu",
                timeout=timedelta(days=1),
            )
            self.device = self._state.device
            # Left to the interpreter's end, gloo's threads may outlive what they stand on, and a
            # run that finished aborts (28 of 60 of the shortest, none with this).
            atexit.register(self._state.destroy_process_group)

    @property
    def is_first(self) -> bool:
        """Whether this process reads, writes and reports for all."""
        return self.rank == 0

    def check(self, accumulate: int) -> None:
        """Checks that the batches of a step can be dealt out evenly.

        Raises:
            SettingsError: they cannot.
        """
        if accumulate % self.size:
            raise SettingsError(
                f"{accumulate} batches a step cannot be dealt out to {self.size} processes",
                where="--accumulate",
                hint=f"give a multiple of {self.size}",
            )

    def mine(self, n: int) -> range:
        """Returns which of `n` batches this process computes."""
        return range(self.rank, n, self.size)

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.size > 1:
            self._state.wait_for_everyone()

    def sums(self, values: Sequence[float]) -> list[float]:
        """Returns each value summed over the processes."""
        if self.size == 1:
            return list(values)
        from accelerate.utils import reduce

        total = reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduction="sum"
        )
        return [float(value) for value in total.tolist()]

    def any(self, asked: bool) -> bool:
        """Says whether a process answers yes: all stop at the same step, or none."""
        return self.sums([float(asked)])[0] > 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums the gradients of every process into each one's parameters."""
        if self.size == 1:
            return
        from accelerate.utils import reduce

        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = reduce(torch.cat([g.flatten() for g in gradients]), reduction="sum")
        parts = flat.split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))
