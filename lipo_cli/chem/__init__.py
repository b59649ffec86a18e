"""Molecules, tables, datasets, splits, overlap and the demo set. Knows RDKit; knows no torch."""
