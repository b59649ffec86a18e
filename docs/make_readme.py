"""Fills the README's tables and figures from what `lipo compare` wrote.

python docs/make_readme.py demo RESULT_FOLDER
python docs/make_readme.py real RESULT_FOLDER
python docs/make_readme.py measured RESULT_FOLDER   # real measurements as the secondary set
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "docs" / "figures"

ONE_SEED = " With one seed, differences of some hundredths are within the noise of retraining."


def page(result: dict[str, Any], where: str) -> str:
    """Returns what the README says of a result: table, provenance, verdicts."""
    several = len({row["peft"] for row in result["summary"]}) > 1
    lines = grid(result["summary"]) if several else table(result["summary"])
    seeds = len({cell["seed"] for cell in result["cells"]})
    lines += ["", provenance(result, where) + ("" if seeds > 1 else ONE_SEED)]
    if seeds > 1:
        worth = result["verdicts"]
        if several:
            tested = [verdict for verdict in worth if verdict["p"] is not None]
            worth = [verdict for verdict in tested if verdict["p"] < 0.05]
            lines += ["", summed_up(tested, worth)]
        lines += ["", *(f"- {verdict['sentence']}" for verdict in worth)]
    return "\n".join(lines)


def provenance(result: dict[str, Any], where: str) -> str:
    """Returns a sentence on data, seeds and time."""
    data, cells = result["dataset"], result["cells"]
    # Selections of the same rows share their runs.
    runs = {cell["run_id"]: cell["seconds"] for cell in cells if cell["run_id"] is not None}
    minutes = sum(runs.values()) / 60
    seeds = len({cell["seed"] for cell in cells})
    return (
        f"Split {data['split']}: {data['n_train']:,} train, {data['n_val']:,} validation, "
        f"{data['n_test']:,} test; a pool of {data['n_secondary']:,}. "
        f"Seeds: {seeds}. Training time {minutes:.1f} minutes{where}."
    )


def grid(summary: list[dict[str, Any]]) -> list[str]:
    """Returns test errors as a Markdown table, a column for each method."""
    methods = list(dict.fromkeys(row["peft"] for row in summary))
    lines = [
        f"| test RMSE (difference to none) | chosen | {' | '.join(methods)} |",
        f"|---|---:|{'---:|' * len(methods)}",
    ]
    for selection in dict.fromkeys(row["selection"] for row in summary):
        rows = {row["peft"]: row for row in summary if row["selection"] == selection}
        chosen = sorted({row["n_selected"] for row in rows.values()})
        sizes = " to ".join(map(str, [chosen[0], *chosen[1:][-1:]]))
        cells = " | ".join(_cell(rows[m]) if m in rows else "" for m in methods)
        lines.append(f"| {selection} | {sizes} | {cells} |")
    return lines


def _error(row: dict[str, Any]) -> str:
    spread = f" ± {row['test_rmse_sd']:.3f}" if row["test_rmse_sd"] is not None else ""
    return f"{row['test_rmse']:.3f}{spread}"


def _cell(row: dict[str, Any]) -> str:
    difference = f" ({row['delta_none']:+.3f})" if row["delta_none"] is not None else ""
    return f"{_error(row)}{difference}"


def summed_up(verdicts: list[dict[str, Any]], named: list[dict[str, Any]]) -> str:
    """Returns a sentence on the tested verdicts, of which those with p < 0.05 are named below it.

    One question under several names has one p and one difference: it counts once.
    """
    n_named = len({(v["peft"], v["p"], abs(v["delta"])) for v in named})
    significant = sum(verdict["significant"] for verdict in verdicts)
    seen = sorted(verdict["detectable"] for verdict in verdicts)
    n_tests = verdicts[0].get("n_tests") or len(verdicts)
    questions = f" on {n_tests} questions" if n_tests != len(verdicts) else ""
    return (
        f"{len(verdicts)} verdicts{questions}, **{significant} significant after Holm's "
        f"correction**; {n_named}{' questions' if questions else ''} with p < 0.05 before it, "
        f"where chance alone gives {n_tests * 0.05:.0f}. Differences of {seen[0]:.3f} to "
        f"{seen[-1]:.3f} (median {seen[len(seen) // 2]:.3f}) would have been seen."
        + (" The ones:" if n_named else "")
    )


def table(summary: list[dict[str, Any]]) -> list[str]:
    """Returns the summary of a result with one method as a Markdown table."""
    lines = [
        "| selection | method | chosen | trained on | val RMSE | test RMSE | vs none | vs random |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in summary:
        interval = (
            f" [{row['delta_low']:+.3f}, {row['delta_high']:+.3f}]"
            if row["delta_low"] is not None
            else ""
        )
        none = f"{row['delta_none']:+.3f}{interval}" if row["delta_none"] is not None else ""
        random = f"{row['delta_random']:+.3f}" if row["delta_random"] is not None else ""
        lines.append(
            f"| {row['selection']} | {row['peft']} | {row['n_selected']} | {row['n_train']:,} "
            f"| {row['val_rmse']:.3f} | {_error(row)} | {none} | {random} |"
        )
    return lines


def main(name: str, folder: Path, where: str = " on 2 CPU cores") -> None:
    """Writes the table between the README's markers and copies the figures.

    Args:
        name: Of the markers.
        folder: Where `lipo compare --out` wrote its result.
        where: What the cells were trained on.
    """
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)", re.DOTALL)
    text = pattern.sub(lambda m: f"{m[1]}{page(result, where)}\n{m[2]}", text)
    readme.write_text(text, encoding="utf-8")
    FIGURES.mkdir(exist_ok=True)
    # With several scorings there is a removal curve for each.
    curves = sorted(
        (folder / "figures").glob("removal_curve*.png"), key=lambda p: "tsds" not in p.stem
    )
    shutil.copy(curves[0], FIGURES / f"{name}_removal_curve.png")
    shutil.copy(folder / "figures" / "rmse_by_cell.png", FIGURES / f"{name}_rmse_by_cell.png")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
