"""One difference of a comparison, with interval, p and power, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lipo_cli.comparison.digits import USUAL, difference_text
from lipo_cli.comparison.intervals import LEVEL
from lipo_cli.comparison.plan import labelled, on_splits
from lipo_cli.settings import Peft

ALPHA = 1 - LEVEL


@dataclass(frozen=True)
class Verdict:
    """A selection against a control, by test RMSE in raw label units.

    Attributes:
        selection: What is judged.
        peft: The fine-tuning method, the same on both sides.
        model: The pretrained model; None where one is compared.
        against: The other side: a control, the bottom of the same ranking, or the same selection
            with the first model.
        n_seeds: Training seeds that both sides finished, in all splits.
        n_splits: Splits that both sides have.
        delta: Mean difference of test RMSE; negative: better than the other side.
        of_splits: Splits of the comparison with a finished cell.
        low: Lower end of the 95 % interval; None with one seed of one split, which cannot tell a
            difference from the noise of retraining, and for a pair on one of several splits, which
            cannot tell it from that of the split.
        high: Upper end.
        p: Two-sided, of no difference.
        p_holm: The same, corrected over all questions of the comparison (Holm 1979).
        n_tests: How many questions those are; None where this one is not tested.
        detectable: The smallest difference that the run would have called significant after the
            correction with a power of 80 %, were the noise what it was estimated to be.
        digits: Decimals that the comparison's RMSEs deserve.
    """

    selection: str
    peft: Peft
    model: str | None
    against: str
    n_seeds: int
    n_splits: int
    delta: float
    of_splits: int = 1
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    n_tests: int | None = None
    detectable: float | None = None
    digits: int = USUAL

    @property
    def significant(self) -> bool:
        """Whether the difference holds at 5 % after the correction."""
        return self.p_holm is not None and self.p_holm < ALPHA

    @property
    def is_the_same(self) -> bool:
        """Whether both sides came out alike with several seeds, so that nothing can be tested."""
        whole = self.n_splits == self.of_splits
        return self.p is None and self.n_seeds > 1 and whole

    def numbers(self) -> str:
        """Says who is compared with whom, the difference, its interval and p, in a line."""
        who = f"{labelled(self.selection, self.model)} / {self.peft}"
        who += on_splits(self.n_splits, self.of_splits)
        if self.low is None or self.high is None or self.p is None or self.p_holm is None:
            return f"{who}: {self.delta:+.{self.digits}f} against {self.against}"
        return (
            f"{who}: {difference_text(self.delta, self.low, self.high, self.digits)} "
            f"against {self.against}, p {_p(self.p)} (Holm {_p(self.p_holm, '')})"
        )

    def outcome(self) -> str:
        """Says what that shows."""
        if self.p_holm is None and self.n_splits < self.of_splits:
            return "one split: cannot be told from what another split would do"
        if self.is_the_same:
            return "the same to the digit with every seed"
        if self.p_holm is None:
            return "one seed: cannot be told from the noise of retraining"
        if self.significant:
            return "better" if self.delta < 0 else "worse"
        # With a p of 0.03 and one of 0.1 after the correction, nothing has been shown.
        if self.detectable is None:
            return "no difference shown"
        return f"no difference shown; {self.detectable:.{self.digits}f} would have been seen"

    def sentence(self) -> str:
        """Says both in a line."""
        return f"{self.numbers()}: {self.outcome()}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the verdict by name, with its sentence."""
        return asdict(self) | {"significant": self.significant, "sentence": self.sentence()}


def _p(value: float, equals: str = "= ") -> str:
    return "< 0.001" if value < 0.001 else f"{equals}{value:.2g}"


def family_size(verdicts: Sequence[Verdict]) -> int:
    """Returns how many questions Holm's correction was over; 0 where none was tested.

    A record of before this was kept tells how many verdicts have a p.
    """
    tested = [verdict for verdict in verdicts if verdict.p is not None]
    return next((v.n_tests for v in tested if v.n_tests is not None), len(tested))
