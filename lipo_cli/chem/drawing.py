"""Molecules as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

_LEGEND = 15
"""Size of the legends in pixels."""


def draw_grid(
    smiles: Sequence[str],
    legends: Sequence[str],
    *,
    columns: int = 4,
    width: int = 260,
    height: int = 220,
) -> bytes:
    """Draws molecules in a grid, each with its legend below; returns a PNG file.

    What is no molecule leaves its place empty, with the legend.

    Args:
        smiles: The molecules.
        legends: A line for each.
        columns: Molecules in a row.
        width: Of one, in pixels.
        height: Of one, in pixels.
    """
    with rdBase.BlockLogs():
        mols = [Chem.MolFromSmiles(text) or Chem.Mol() for text in smiles]
    rows = -(-len(mols) // columns)
    drawer = rdMolDraw2D.MolDraw2DCairo(columns * width, rows * height, width, height)
    options: Any = drawer.drawOptions()  # the stubs have another type for its fields
    options.legendFontSize = _LEGEND
    drawer.DrawMolecules(mols, legends=list(legends))
    drawer.FinishDrawing()
    content: bytes = drawer.GetDrawingText()
    return content
