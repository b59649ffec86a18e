from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.chem.overlap import drop_overlap
from lipo_cli.chem.splits import Split, make_split
from lipo_cli.chem.tables import MoleculeTable, read_table
from lipo_cli.settings import DataSettings

MakeTable = Callable[[list[tuple[str, float]], str], MoleculeTable]


@pytest.fixture
def make(tmp_path: Path) -> MakeTable:
    def table(rows: list[tuple[str, float]], name: str) -> MoleculeTable:
        path = tmp_path / name
        path.write_text("smiles,y\n" + "".join(f"{smiles},{label}\n" for smiles, label in rows))
        return read_table(path)

    return table


def split_of(train: list[int], val: list[int], test: list[int]) -> Split:
    parts = (np.array(part, dtype=np.int64) for part in (train, val, test))
    return Split("column", 0, *parts)


def test_what_is_in_validation_or_test_is_dropped_without_regard_to_stereo(make: MakeTable) -> None:
    primary = make(
        [("C[C@H](N)O", 1.0), ("CCO", 2.0), ("F/C=C/F", 3.0), ("CCN", 4.0), ("CCS", 5.0)], "p.csv"
    )
    secondary = make(
        [
            ("CCCC", 0.0),  # nowhere
            ("OCC", 2.5),  # train, the same molecule
            ("C[C@@H](N)O", 1.0),  # train, the mirror image
            ("F/C=C\\F", 3.0),  # validation, the other isomer
            ("SCC", 4.0),  # test
        ],
        "s.csv",
    )
    kept, report = drop_overlap(secondary, primary, split_of([0, 1], [2, 3], [4]))
    assert kept.tolist() == [0, 1, 2]
    assert kept.dtype == np.int64
    assert (report.n_secondary, report.n_kept) == (5, 3)
    assert (report.canonical_duplicates, report.skeleton_duplicates) == (2, 4)
    assert (report.dropped_val, report.dropped_test, report.in_train) == (1, 1, 2)
    assert report.label_rmse_on_shared == pytest.approx(np.sqrt((0.5**2 + 1.0**2) / 2))
    assert "4 of 5" in report.sentence()


def test_molecule_in_test_and_validation_counts_once(make: MakeTable) -> None:
    primary = make([("C[C@H](N)O", 1.0), ("C[C@@H](N)O", 1.0), ("CC", 1.0)], "p.csv")
    secondary = make([("CC(N)O", 1.0)], "s.csv")
    kept, report = drop_overlap(secondary, primary, split_of([2], [0], [1]))
    assert len(kept) == 0
    assert (report.dropped_val, report.dropped_test) == (0, 1)
    assert report.label_rmse_on_shared is None


def test_no_overlap_says_so(make: MakeTable) -> None:
    primary = make([("CC", 1.0), ("CCC", 1.0), ("CCCC", 1.0)], "p.csv")
    kept, report = drop_overlap(make([("CO", 1.0)], "s.csv"), primary, split_of([0], [1], [2]))
    assert kept.tolist() == [0]
    assert report.sentence() == "None of the 1 secondary molecules is in the primary set."


def test_overlap_of_the_real_sets(data_dir: Path) -> None:
    primary = read_table(data_dir / "lipophilicity.csv")
    split = make_split(primary, DataSettings(split="reference"))
    kept, report = drop_overlap(read_table(data_dir / "secondary.csv"), primary, split)
    assert (report.canonical_duplicates, report.skeleton_duplicates) == (10, 27)
    assert report.label_rmse_on_shared == pytest.approx(1.053, abs=1e-3)
    assert len(kept) == 300 - report.dropped_val - report.dropped_test
    _, outside = drop_overlap(read_table(data_dir / "external_logd.csv"), primary, split)
    assert outside.skeleton_duplicates == 0
