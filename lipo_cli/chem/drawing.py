"""Molecules as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rdkit import Chem, rdBase
from rdkit.Chem.Draw import rdMolDraw2D

_LEGEND = 15
"""Size of the legends in pixels."""
_BOND = 24
"""Longest bond in pixels: small molecules are not blown up beside large ones."""


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


def draw_svg(smiles: str, *, width: int = 220, height: int = 160) -> str | None:
    """Draws one molecule on white; returns an SVG document, or None for what is no molecule.

    Atom labels are drawn as outlines: no font is needed, and no text of a file gets into it.

    Args:
        smiles: The molecule.
        width: In pixels.
        height: In pixels.
    """
    with rdBase.BlockLogs():
        mol: Any = Chem.MolFromSmiles(smiles)  # the stubs know no failure
    if mol is None:
        return None
    drawer = rdMolDraw2D.MolDraw2DSVG(width, height)
    options: Any = drawer.drawOptions()
    options.fixedBondLength = _BOND
    rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
    drawer.FinishDrawing()
    content: str = drawer.GetDrawingText()
    return content
