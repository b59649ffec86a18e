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


def table(result: dict[str, Any], where: str) -> str:
    """Returns the summary of a result as a Markdown table with its provenance and verdicts."""
    lines = [
        "| selection | method | chosen | trained on | val RMSE | test RMSE | vs none | vs random |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result["summary"]:
        spread = f" ± {row['test_rmse_sd']:.3f}" if row["test_rmse_sd"] is not None else ""
        interval = (
            f" [{row['delta_low']:+.3f}, {row['delta_high']:+.3f}]"
            if row["delta_low"] is not None
            else ""
        )
        none = f"{row['delta_none']:+.3f}{interval}" if row["delta_none"] is not None else ""
        random = f"{row['delta_random']:+.3f}" if row["delta_random"] is not None else ""
        lines.append(
            f"| {row['selection']} | {row['peft']} | {row['n_selected']} | {row['n_train']:,} "
            f"| {row['val_rmse']:.3f} | {row['test_rmse']:.3f}{spread} | {none} | {random} |"
        )
    data, cells = result["dataset"], result["cells"]
    seeds = len({cell["seed"] for cell in cells})
    minutes = sum(cell["seconds"] for cell in cells) / 60
    lines.append(
        f"\nSplit {data['split']}: {data['n_train']:,} train, {data['n_val']:,} validation, "
        f"{data['n_test']:,} test; a pool of {data['n_secondary']:,}. Seeds: {seeds}. "
        f"Training time {minutes:.1f} minutes{where}." + ("" if seeds > 1 else ONE_SEED)
    )
    sentences = [verdict["sentence"] for verdict in result["verdicts"] if seeds > 1]
    return "\n".join([*lines, *(["", *(f"- {text}" for text in sentences)] if sentences else [])])


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
    text = pattern.sub(lambda m: f"{m[1]}{table(result, where)}\n{m[2]}", text)
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
