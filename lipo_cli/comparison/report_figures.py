"""The figures of a report, each with how to read it and with what it shows in numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from lipo_cli.comparison.cell_result import CellResult
from lipo_cli.comparison.figures import VALUE_NAMES
from lipo_cli.comparison.plan import on_splits
from lipo_cli.comparison.report_reading import equal_steps, n_splits
from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.report_verdicts import with_minus
from lipo_cli.comparison.scoring import WITHOUT_POINTS
from lipo_cli.comparison.variation import Unit, mean_by_split
from lipo_cli.settings import ScoringMethod

_MOST_NAMED = 24
"""Means that an alternative text reads out; of more, the range."""


class Words(NamedTuple):
    """What stands beside a figure: its title, how to read it, and what it shows."""

    title: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Picture:
    """A figure with its words."""

    name: str
    png: bytes
    words: Words


def pictures_of(material: Material) -> list[Picture]:
    """Returns the figures in reading order, each with its caption and its text alternative."""
    drawn = [
        Picture(stem, content, Words(*map(with_minus, _words(stem, material))))
        for name, content in material.figures.items()
        for stem in [name.removesuffix(".png")]
    ]
    # Results first, the search for their settings after them.
    return sorted(drawn, key=lambda picture: picture.name.startswith("tuning_"))


def _words(stem: str, material: Material) -> Words:
    if stem in _OF_CELLS:
        return _OF_CELLS[stem](material)
    for method in material.values:
        for kind, words in _OF_SCORING.items():
            # One method's figures bear plain names; those of several are told apart.
            if stem in (kind, f"{kind}_{method}"):
                return words(material, method)
    for kind, title in _OF_TUNING.items():
        if stem.startswith(kind):
            return _tuning(stem.removeprefix(f"{kind}_"), title, material)
    name = stem.replace("_", " ")
    return Words(name.capitalize(), "", f"Figure {name}, not described.")


_OF_TUNING = {
    "tuning_history": "Tuning, trial by trial",
    "tuning_parameters": "Tuning, what was tried",
    "tuning_importance": "Tuning, what matters",
}


def _tuning(ending: str, title: str, material: Material) -> Words:
    """Describes a figure of the search for the settings of `METHOD` or `METHOD_NUMBER`."""
    peft, _, number = ending.partition("_")
    if number:
        tuned = material.tuning[int(number) - 1]
    else:
        tuned = next(each for each in material.tuning if each["peft"] == peft)
    found = ", ".join(f"{name} {value:.3g}" for name, value in tuned["parameters"].items())
    at_first = tuned["first_val_rmse"]
    digits = material.decimals + 1
    beside = "" if at_first is None else f", {at_first:.{digits}f} with the first settings"
    split = "" if tuned["split"] is None else f", split {tuned['split']}"
    return Words(
        f"{title}: {peft}{split}",
        "The control `none` trained again and again with other settings, judged by validation.",
        f"{tuned['n_trials']} trials for {peft}{split}: lowest validation RMSE "
        f"{tuned['val_rmse']:.{digits}f} with {found}{beside}.",
    )


def _done(material: Material) -> list[CellResult]:
    return [cell for cell in material.cells if cell.status == "finished"]


def _means(material: Material, value: Callable[[CellResult], float | None]) -> str:
    """Reads out the means over seeds by method and selection, or their range where many."""
    groups: dict[tuple[str, str], list[tuple[Unit, float]]] = {}
    of_splits = n_splits(material)
    for cell in _done(material):
        if (number := value(cell)) is not None:
            groups.setdefault((cell.peft, cell.label), []).append(((cell.split, cell.seed), number))
    by_peft: dict[str, dict[str, float]] = {}
    for (peft, label), numbers in groups.items():
        mean, by_split = mean_by_split(numbers)
        by_peft.setdefault(peft, {})[label + on_splits(len(by_split), of_splits)] = mean
    digits = material.decimals
    said = []
    for peft, means in by_peft.items():
        if len(groups) <= _MOST_NAMED:
            named = [f"{label} {mean:.{digits}f}" for label, mean in means.items()]
            said.append(f"{peft}: {', '.join(named)}")
            continue
        low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
        said.append(
            f"{peft}: from {means[low]:.{digits}f} ({low}) to {means[high]:.{digits}f} ({high})"
        )
    return "; ".join(said)


def _rmse_by_cell(material: Material) -> Words:
    label = material.record["label"]
    return Words(
        f"Test RMSE ({label}) by selection and method",
        "A dot per seed, a bar at their mean, a dashed line at the control `none`; further left is "
        "better.",
        f"Dot plot of test RMSE. Means: {_means(material, lambda c: c.test_rmse)}.",
    )


def _training_curves(material: Material) -> Words:
    done = _done(material)
    best = [cell.best_epoch for cell in done if cell.best_epoch is not None]
    epochs = material.settings["training"]["epochs"]
    kept = f" The epochs kept are {_span(best)} of {epochs}." if best else ""
    return Words(
        "Training curves",
        "RMSE on validation (solid) and training (dotted) after each epoch; a curve that still "
        "falls at its end wants more epochs.",
        "Line plot of RMSE by epoch. Validation RMSE of the epoch kept, means over seeds: "
        f"{_means(material, lambda c: c.val_rmse)}.{kept}",
    )


def _training_time(material: Material) -> Words:
    parts = []
    for peft in dict.fromkeys(cell.peft for cell in _done(material)):
        seconds = [c.seconds for c in _done(material) if c.peft == peft and c.seconds is not None]
        if seconds:
            parts.append(f"{peft} {fmean(seconds):.0f} s ({_span([round(s) for s in seconds])})")
    return Words(
        "Training time by method",
        "A dot per cell, a bar at their mean."
        + ("" if equal_steps(material) else " More training molecules are more steps."),
        f"Bar chart of seconds per cell: {', '.join(parts)}.",
    )


def _predicted(material: Material) -> Words:
    best = material.record["best"] or {}
    name = " / ".join(str(best.get(key)) for key in ("selection", "peft"))
    name += f" / seed {best.get('seed')}"
    numbers = [
        f"{title} {best[key]:.{material.decimals}f}"
        for title, key in (
            ("RMSE", "test_rmse"),
            ("MAE", "test_mae"),
            ("R\N{SUPERSCRIPT TWO}", "test_r2"),
            ("Spearman", "test_spearman"),
        )
        if best.get(key) is not None
    ]
    return Words(
        "Predicted against measured",
        f"The test molecules as the cell {name} predicts them, which was offered as champion; on "
        "the line, both agree.",
        f"Scatter plot of {material.dataset['n_test']:,} test molecules, predicted against "
        f"measured {material.record['label']}, cell {name}: {', '.join(numbers)}.",
    )


def _removal(material: Material, method: ScoringMethod) -> Words:
    curve = material.curves[method].sort_values("n_kept")
    error = -curve["utility"].to_numpy()
    kept = material.scores[method].get("n_optimal")
    known = "nested estimate" in (material.scores[method].get("optimal") or "")
    nested = "; the nested estimate beside the molecules is not" if known else ""
    # Comparisons of before the setting do not name it.
    none = WITHOUT_POINTS[material.settings.get("tsds", {}).get("game", "secondary")]
    lowest = len(error) - 1 - int(error[::-1].argmin())  # ties keep more
    chosen = (
        f" {kept:.0f} were kept, at the lowest point of this curve, which is therefore optimistic"
        f"{nested}."
        if kept is not None
        else ""
    )
    return Words(
        f"Removal curve, {VALUE_NAMES[method]}",
        "Error of a small ridge model on validation molecules that did not set the order, while "
        "points are removed from the lowest value on. A dip means that the points removed so far "
        "did harm; a flat curve means that the number kept matters little.",
        f"Line plot of the ridge model's mean squared error: {error[-1]:.4g} with all "
        f"{len(curve) - 1:,} points, {error[0]:.4g} {none}, lowest {error[lowest]:.4g} with "
        f"{int(curve['n_kept'].to_numpy()[lowest]):,}.{chosen}",
    )


def _values(material: Material, method: ScoringMethod) -> Words:
    table = material.values[method]
    values, errors = table["value"], table["standard_error"]
    kept = f", {int(table['selected'].sum()):,} kept" if method != "uncertain" else ""
    return Words(
        f"Sorted, {VALUE_NAMES[method]}",
        "Every point of the pool by rank with its standard error. Above 0: adding it lowers the "
        "error on validation."
        if method != "uncertain"
        else "Every point of the pool by rank: how unsure the model is of it.",
        f"{len(table):,} points in falling order from {values.max():+.3g} to {values.min():+.3g}, "
        f"{int((values > 0).sum()):,} of them above 0{kept}; median standard error "
        f"{errors.median():.2g}.",
    )


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


_OF_CELLS: dict[str, Callable[[Material], Words]] = {
    "rmse_by_cell": _rmse_by_cell,
    "training_curves": _training_curves,
    "training_time": _training_time,
    "predicted_vs_measured": _predicted,
}
_OF_SCORING: dict[str, Callable[[Material, ScoringMethod], Words]] = {
    "removal_curve": _removal,
    "values": _values,
}
