"""A registered version as people read it, and the same as data."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lipo_cli.commands.model_source import short_number
from lipo_cli.commands.options import DEFAULT_STORE
from lipo_cli.comparison.digits import decimals, rmse_text
from lipo_cli.tracking.evidence import CONTROL, SETTINGS, Evidence
from lipo_cli.tracking.versions import RegisteredVersion

UNKNOWN = "not recorded"
_COLUMNS = ("version", "alias", "dataset", "split", "selection", "peft", "seed", "val RMSE", "made")


def version_as_dict(version: RegisteredVersion) -> dict[str, Any]:
    """Returns what the registry says."""
    return {
        "model": version.model,
        "version": version.version,
        "aliases": list(version.aliases),
        "run_id": version.run_id,
        "made": datetime.fromtimestamp(version.created / 1000).astimezone().isoformat(),
        "description": version.description,
        "tags": dict(version.tags),
    }


def versions_table(versions: list[RegisteredVersion]) -> Table:
    """Returns one row per version."""
    table = Table(box=None)
    for title in ("model", *_COLUMNS):
        right = title in ("version", "val RMSE", "seed")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for v in versions:
        cells = (
            v.model,
            v.version,
            ", ".join(v.aliases),
            *(v.tags.get(key, "") for key in ("dataset", "split", "selection", "peft", "seed")),
            short_number(v.tags.get("val_rmse", "")),
            f"{datetime.fromtimestamp(v.created / 1000):%Y-%m-%d}",
        )
        table.add_row(*map(Text, cells))
    return table


_COUNTS = ("n_selected", "n_train", "n_seeds", "n_splits", "of_splits")
"""What of a row is shown as it stands."""


def evidence_as_dict(evidence: Evidence, store: Path | None) -> dict[str, Any]:
    """Returns all that `lipo model show` tells; None where it is not known.

    Args:
        evidence: What speaks for the version.
        store: The folder to name in the command that predicts; None where none need be named.
    """
    summary = evidence.summary or {}
    control = evidence.control
    return {
        **version_as_dict(evidence.version),
        "comparison_run_id": evidence.comparison_run_id,
        **{name: evidence.settings.get(name) for name in SETTINGS},
        **{name: summary.get(name) for name in _COUNTS},
        "val_rmse": evidence.val_rmse,
        "test_rmse": evidence.test_rmse,
        "test_mae": evidence.test_mae,
        "test_rmse_over_seeds": summary.get("test_rmse"),
        "test_rmse_sd": summary.get("test_rmse_sd"),
        "constant": evidence.constant,
        "control": None
        if control is None
        else {key: control.get(key) for key in ("selection", "peft", "test_rmse", "n_seeds")},
        **{
            name: summary.get(name)
            for name in ("delta_none", "delta_low", "delta_high", "delta_random")
        },
        "audit": evidence.audit,
        "audit_line": evidence.audit_line,
        "predict": predict_command(evidence.version, store),
    }


def predict_command(version: RegisteredVersion, store: Path | None) -> str:
    """Returns the command that predicts with this very version."""
    place = f" --store {shlex.quote(str(store))}" if store not in (None, DEFAULT_STORE) else ""
    return f"lipo predict FILE --model {version.uri}{place}"


def evidence_table(content: Mapping[str, Any]) -> Table:
    """Returns what `evidence_as_dict` holds, for people."""
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _lines(content):
        # As Text, not as Rich's markup: a path may hold brackets.
        table.add_row(name, Text(text))
    return table


def _lines(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    aliases = "".join(f", @{alias}" for alias in content["aliases"])
    yield "model", f"{content['model']} version {content['version']}{aliases}"
    yield "made", f"{datetime.fromisoformat(content['made']):%Y-%m-%d %H:%M}"
    yield "dataset", _joined(content["dataset"], _titled("label column", content["label"]))
    yield "split", content["split"] or UNKNOWN
    yield "method", _joined(content["peft"], _titled("seed", content["seed"]))
    yield "selection", _joined(content["selection"], _points(content))
    yield "base model", content["base"] or UNKNOWN
    yield (
        "validation RMSE",
        _rmse(content["val_rmse"], "chose the epoch; its mean over seeds the champion"),
    )
    yield "test RMSE", _rmse(content["test_rmse"], "measured at the end, chose nothing")
    if content["constant"] is not None:
        val, test = (content["constant"][name] for name in ("val_rmse", "test_rmse"))
        yield "to be beaten", _of_constant(val, test)
    if content["selection"] == CONTROL:
        yield "control", "it is the control itself: no secondary point was added"
    else:
        yield "control", _control(content)
        yield "difference", _difference(content)
        audit = content["audit_line"] or content["audit"] or UNKNOWN
        yield "secondary audit", f"{content['audit']}: {audit}" if content["audit_line"] else audit
    yield "run", content["run_id"] or UNKNOWN
    yield "comparison", content["comparison_run_id"] or UNKNOWN
    yield "predict with", content["predict"]


def _of_constant(val: float, test: float) -> str:
    told = f"validation {rmse_text(val)}, test {rmse_text(test)}"
    return f"train's mean label for all: {told}"


def _points(content: Mapping[str, Any]) -> str:
    chosen, train = content["n_selected"], content["n_train"]
    if chosen is None or train is None:
        return ""
    return f"{chosen:,} secondary points beside {train - chosen:,} primary ones"


def _control(content: Mapping[str, Any]) -> str:
    control, own = content["control"], content["test_rmse_over_seeds"]
    if control is None or control["test_rmse"] is None or own is None:
        return UNKNOWN
    n_cells, (n_splits, of_splits) = content["n_seeds"], _splits(content)
    means = f", means of {n_cells} {_cells(n_splits)}" if n_cells > 1 else ""
    if n_splits < of_splits:
        means += f": of {n_splits} of {of_splits} splits, which do not compare with all"
    theirs = rmse_text(control["test_rmse"])
    return (
        f"{control['selection']} with {control['peft']}: test RMSE {theirs}, "
        f"its row {rmse_text(own)}{means}"
    )


def _splits(content: Mapping[str, Any]) -> tuple[int, int]:
    """Returns on how many splits the row is, and of how many; a record of before names none."""
    return content["n_splits"] or 1, content["of_splits"] or 1


def _cells(n_splits: int) -> str:
    return f"cells (seeds of {n_splits} splits)" if n_splits > 1 else "seeds"


def _difference(content: Mapping[str, Any]) -> str:
    delta, low, high = (content[name] for name in ("delta_none", "delta_low", "delta_high"))
    if delta is None:
        return UNKNOWN
    n_splits, of_splits = _splits(content)
    digits = decimals([content["test_rmse_over_seeds"]]) + 1
    if low is None or high is None:
        one = "seed" if of_splits == 1 else "split"
        spread = f"; one {one} tells no difference from noise"
    else:
        over = f"{n_splits} splits" if n_splits > 1 else f"{content['n_seeds']} seeds"
        spread = f" [{low:+.{digits}f}, {high:+.{digits}f}], 95 % over {over}"
    random = content["delta_random"]
    chance = f"; to as many random points {random:+.{digits}f}" if random is not None else ""
    return f"{delta:+.{digits}f}{spread}{chance} (below 0: the added points helped)"


def _rmse(value: float | None, role: str) -> str:
    return UNKNOWN if value is None else f"{rmse_text(value)} ({role})"


def _titled(title: str, value: str | None) -> str:
    return "" if value is None else f"{title} {value}"


def _joined(first: str | None, second: str) -> str:
    return ", ".join(part for part in (first or UNKNOWN, second) if part)
