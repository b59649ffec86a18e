"""A scoring's pictures are drawn whatever the values and the label's name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from lipo_cli.comparison.figures import STYLE
from lipo_cli.comparison.score_figures import draw_scores, residual_figure
from lipo_cli.comparison.scoring import Scored
from lipo_cli.valuation.removal import curve_of
from lipo_cli.valuation.selection import PointScores
from tests.comparison.conftest import DEMO

N = 57


def scored(values: np.ndarray) -> Scored:
    smiles = pd.read_csv(DEMO / "secondary.csv")["smiles"].head(N).tolist()
    error = np.full(N, 0.1)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, N + 1),
            "value": values,
            "standard_error": error,
            "label": 1.0,
            "smiles": smiles,
            "selected": np.arange(N) < 10,
        }
    )
    rng = np.random.default_rng(0)
    similarity = rng.uniform(size=N)
    similarity[1::2] = np.nan  # of a large pool not all are compared
    points = pd.DataFrame({"model_error": rng.uniform(size=N), "similarity": similarity})
    curve = curve_of(rng.uniform(1, 2, size=(N + 1, 20)))
    return Scored("knn", PointScores(values, error, 10, smiles), table, curve, points=points)


@pytest.mark.parametrize(
    "values",
    [
        np.nextafter(np.full(N, 0.25), np.arange(N) % 2),  # alike but for rounding
        np.zeros(N),
        np.linspace(1, -1, N),
    ],
)
@pytest.mark.parametrize("label", ["logD", "Cost_$/g_$kg", "$x_$"])
def test_every_picture_is_drawn(tmp_path: Path, values: np.ndarray, label: str) -> None:
    paths = draw_scores(scored(values), tmp_path, label)
    assert [path.stem for path in paths] == ["values", "removal_curve", "diagnostics", "molecules"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


@pytest.mark.parametrize("last", [0.001, 0.3])  # three decades, and less than one
def test_the_axis_of_residuals_is_labelled_in_plain_numbers(last: float) -> None:
    solved = replace(scored(np.linspace(1, -1, N)), residuals=tuple(np.geomspace(0.9, last, 50)))
    with mpl.rc_context(STYLE):
        figure = residual_figure(solved)
        figure.canvas.draw()
        (axes,) = figure.axes
        ticks = axes.yaxis.get_ticklabels(which="both")
    shown = [text.get_text() for text in ticks if text.get_text()]
    assert len(shown) >= 2
    assert all(0 < float(text.replace("\N{MINUS SIGN}", "-")) <= 10 for text in shown)
