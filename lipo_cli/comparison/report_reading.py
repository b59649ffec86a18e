"""How the numbers of a comparison are to be read, for one who was not there."""

from __future__ import annotations

from lipo_cli.comparison.report_record import Material
from lipo_cli.comparison.summary import seeds_text

MORE_STEPS = "a cell with more rows takes more steps, which may be part of its difference to `none`"
FEWER_VIEWS = (
    "with equal steps a cell with more rows sees each of them less often, which may be part of its "
    "difference to `none`"
)


def equal_steps(material: Material) -> bool:
    """Returns whether all cells took equal steps."""
    # Comparisons of before the setting do not name it.
    return bool(material.settings["training"].get("equal_steps", False))


def n_splits(material: Material) -> int:
    """Returns the number of splits with a finished cell."""
    return len({cell.split for cell in material.cells if cell.status == "finished"})


def how_to_read(material: Material) -> list[tuple[str, str]]:
    """Returns what a reader who was not there should know."""
    seeds = len({cell.seed for cell in material.cells if cell.status == "finished"})
    splits = n_splits(material)
    facts = [
        (
            "RMSE",
            f"The typical error of a prediction in {material.record['label']} units: lower is "
            "better. Validation chose epochs, values and the champion; test was measured once.",
        ),
        (
            "Controls",
            "`none` is training without the secondary set, `all` with all of it, `random:k=K` with "
            "K of its points drawn at random. A choice is worth something if it beats both `none` "
            "and as many random points.",
        ),
        (
            "Equal steps, fewer views",
            "Epochs of all cells have as many rows as the primary training set, dealt out in turn "
            "from all that a cell trains on: more points are no more steps, but fewer views of "
            "each, which may count against larger choices until the cells have converged. "
            "(--no-equal-steps gives each all its rows every epoch.)",
        )
        if equal_steps(material)
        else (
            "More points, more steps",
            "Cells train for the same number of epochs, so that more points are also more steps: "
            "the difference to random points is free of that, the one to `none` is not until the "
            "cells have converged. (--equal-steps, the default, gives all equal steps.)",
        ),
        (
            "Seeds",
            "One seed proves little: retraining the same cell moves its RMSE by some per cent. "
            "Run it with --seeds 3 or more."
            if seeds < 2 and splits < 2
            else f"Intervals are over {splits} splits, whose training molecules overlap. Counts of "
            "molecules, values, drawn molecules, overlaps and the audit are of the first split."
            if splits > 1
            else f"Intervals are over {seeds_text(material.summary)} training seeds and the test "
            "molecules; another split of the data may differ by more than they say.",
        ),
    ]
    if material.values:
        facts.append(
            (
                "Values",
                "Above 0: adding the point lowers the error on validation molecules, as the method "
                "works it out without retraining. The standard error is what other validation "
                "molecules would do; other training molecules would move the values, too. A value "
                "is no judgement on a measurement: a low one may be a wrong label or a molecule "
                "unlike those that are to be predicted.",
            )
        )
    facts.append(
        (
            "Champion",
            "The registry's alias goes to the best on validation. The lowest test RMSE of many "
            "cells is partly luck: it is marked in the table, and decides nothing.",
        )
    )
    return facts
