"""Every failure that a user can cause, with what to do about it; one exit code each.

The exit codes are part of the interface (README, Exit codes): scripts may rely on them.
"""

from __future__ import annotations

from pathlib import Path


class LipoError(Exception):
    """A failure that ends a command in one clear line: what happened, where, and what to do.

    Args:
        what: What went wrong, one sentence without a final full stop.
        where: The file, line, column or option that it concerns.
        hint: What the user can do about it.
    """

    exit_code = 1

    def __init__(
        self, what: str, *, where: str | Path | None = None, hint: str | None = None
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = str(where) if where is not None else None
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps `where` and `hint` when the error crosses a process."""
        return _rebuild, (type(self), self.what, self.where, self.hint)

    def __str__(self) -> str:
        """Returns the one line that the user reads."""
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return " ".join(f"{place}{self.what}{advice}".split())


def _rebuild(cls: type[LipoError], what: str, where: str | None, hint: str | None) -> LipoError:
    return cls(what, where=where, hint=hint)


class SettingsError(LipoError):
    """A flag, preset or configuration file that makes no sense."""

    exit_code = 2


class DataError(LipoError):
    """A file, row, column, split or dataset that cannot be used."""

    exit_code = 3


class ModelError(LipoError):
    """A checkpoint, tokenizer, saved or registered model that is missing or does not match."""

    exit_code = 4


class TrainingError(LipoError):
    """A training run that diverged or cannot start."""

    exit_code = 5


class ValuationError(LipoError):
    """Scores that are not finite, did not converge, or a selection that cannot be made."""

    exit_code = 6


class TrackingError(LipoError):
    """The MLflow store or a run is missing or refuses."""

    exit_code = 7


class NetworkError(LipoError):
    """A download that failed or whose checksum is wrong."""

    exit_code = 8


class PartialFailure(LipoError):  # noqa: N818  # the table stands: not quite an error
    """A comparison that finished with failed cells: the table stands, but is not whole."""

    exit_code = 9


class Interrupted(BaseException):
    """Ctrl-C (130) or SIGTERM (143): what was finished is kept.

    Like KeyboardInterrupt no `Exception`: code that survives any failure must not survive this.
    """

    def __init__(self, signal_number: int = 2) -> None:
        super().__init__("interrupted (what is finished is kept; the same command goes on)")
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[object, ...]:
        """Keeps the signal when the error crosses a process."""
        return type(self), (self.signal_number,)
