"""What a comparison proves: a difference to a control, its interval, and its test."""

from __future__ import annotations

from dataclasses import dataclass

from lipo_cli.comparison.plan import labelled
from lipo_cli.settings import Peft


@dataclass(frozen=True)
class Verdict:
    """A selection with one method against one control, paired; RMSE in raw label units.

    Attributes:
        selection: The selection.
        peft: The method.
        model: The pretrained model; None where one is compared.
        against: The control: `none`, `all`, `random:k=20`, or another selection.
        n_seeds: Seeds of the pairs.
        n_splits: Splits of the pairs.
        delta: Mean difference of test RMSE; negative: better than `against`.
        low: Lower end of its 95 % interval; None with one seed.
        high: Upper end.
        p: Two-sided p-value.
        p_holm: The same after Holm's correction over the whole family.
        detectable: The smallest difference that 80 % power would have seen.
    """

    selection: str
    peft: Peft
    model: str | None
    against: str
    n_seeds: int
    n_splits: int
    delta: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    detectable: float | None

    def sentence(self) -> str:
        """Returns the verdict in one line."""
        interval = (
            f" [{self.low:+.3f}, {self.high:+.3f}]"
            if self.low is not None and self.high is not None
            else ""
        )
        tested = (
            f", p = {self.p:.2g} (Holm {self.p_holm:.2g})"
            if self.p is not None and self.p_holm is not None
            else ""
        )
        name = labelled(self.selection, self.model)
        return f"{name} / {self.peft}: {self.delta:+.3f}{interval} against {self.against}{tested}"
