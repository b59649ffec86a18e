from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.chem.molecules import murcko_scaffold
from lipo_cli.chem.split_file import write_split
from lipo_cli.chem.splits import (
    PARTS,
    balanced_parts,
    make_split,
    random_parts,
    reference_parts,
    scaffold_parts,
)
from lipo_cli.chem.tables import MoleculeTable, read_table
from lipo_cli.errors import DataError
from lipo_cli.settings import DataSettings


def table_of(folder: Path, smiles: list[str], name: str = "x.csv") -> MoleculeTable:
    rows = "".join(f"{text},{i / 10}\n" for i, text in enumerate(smiles))
    path = folder / name
    path.write_text(f"smiles,y\n{rows}")
    return read_table(path)


@pytest.fixture
def molecules(tmp_path: Path) -> MoleculeTable:
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCNCC1", "c1ccsc1"]
    return table_of(tmp_path, ["C" * k + ring for ring in rings for k in range(1, 21)])


def check_is_partition(parts: tuple[object, ...], n: int) -> None:
    rows = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
    assert sorted(rows.tolist()) == list(range(n))


@pytest.mark.parametrize("n", [10, 11, 57, 1128, 1500, 4200])
def test_reference_split_is_that_of_the_datasets_library(n: int) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is a dev dependency")
    whole = datasets.Dataset.from_dict({"row": list(range(n))})
    outer = whole.train_test_split(test_size=0.2, seed=42)
    inner = outer["train"].train_test_split(test_size=0.1, seed=42)
    train, val, test = reference_parts(n)
    assert list(train) == inner["train"]["row"]
    assert list(val) == inner["test"]["row"]
    assert list(test) == outer["test"]["row"]


def test_reference_split_sizes() -> None:
    assert [len(part) for part in reference_parts(4200)] == [3024, 336, 840]


def test_random_split_has_the_sizes_asked_for_and_its_seed_decides() -> None:
    keys = list(range(103))
    first = random_parts(keys, (0.7, 0.2, 0.1), seed=3)
    check_is_partition(first, 103)
    assert [len(part) for part in first] == [72, 21, 10]
    assert random_parts(keys, (0.7, 0.2, 0.1), seed=3) == first
    assert random_parts(keys, (0.7, 0.2, 0.1), seed=4) != first


def test_random_split_keeps_groups_together() -> None:
    keys = [i // 3 for i in range(300)]
    parts = random_parts(keys, (0.8, 0.1, 0.1), seed=0)
    check_is_partition(parts, 300)
    homes = [{keys[row] for row in part} for part in parts]
    assert sum(len(home) for home in homes) == 100


def test_stereoisomers_stay_together_when_asked(tmp_path: Path) -> None:
    pairs = [f"{'C' * k}C[C{mark}H](N)F" for k in range(30) for mark in ("@", "@@")]
    table = table_of(tmp_path, pairs)
    assert len(table) == 60
    together = 0
    for seed in range(5):
        split = make_split(table, DataSettings(split="random", split_seed=seed))
        words = split.columns(60)
        assert all(words[2 * i] == words[2 * i + 1] for i in range(30))
        loose = make_split(
            table, DataSettings(split="random", split_seed=seed, keep_stereo_groups=False)
        ).columns(60)
        together += sum(loose[2 * i] == loose[2 * i + 1] for i in range(30))
    assert together < 150


def deepchem_split(
    scaffolds: list[str], fractions: tuple[float, float, float]
) -> tuple[list[int], list[int], list[int]]:
    """DeepChem's procedure as its documentation describes it, written independently."""
    members = {name: [i for i, s in enumerate(scaffolds) if s == name] for name in set(scaffolds)}
    ordered = sorted(members.values(), key=lambda rows: (-len(rows), -rows[0]))
    n = len(scaffolds)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for rows in ordered:
        if len(parts[0]) + len(rows) > fractions[0] * n:
            over = len(parts[0]) + len(parts[1]) + len(rows) > (fractions[0] + fractions[1]) * n
            parts[2 if over else 1].extend(rows)
        else:
            parts[0].extend(rows)
    return parts


def test_scaffold_split_is_deepchems() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        names = [f"s{int(i)}" for i in rng.zipf(1.6, size=int(rng.integers(20, 200))) % 40]
        assert scaffold_parts(names, (0.8, 0.1, 0.1)) == deepchem_split(names, (0.8, 0.1, 0.1))


def test_scaffold_split_breaks_ties_by_the_later_first_row() -> None:
    train, val, test = scaffold_parts(["a", "b", "c", "d"], (0.5, 0.25, 0.25))
    assert (train, val, test) == ([3, 2], [1], [0])


@pytest.mark.parametrize("name", ["scaffold", "scaffold_balanced"])
def test_no_scaffold_is_in_two_parts(molecules: MoleculeTable, name: str) -> None:
    settings = DataSettings.model_validate({"split": name, "fractions": (0.6, 0.2, 0.2)})
    split = make_split(molecules, settings)
    check_is_partition(tuple(split.part(part) for part in PARTS), len(molecules))
    words = split.columns(len(molecules))
    homes: dict[str, set[str]] = {}
    for smiles, word in zip(molecules.smiles, words, strict=True):
        homes.setdefault(murcko_scaffold(smiles), set()).add(str(word))
    assert all(len(home) == 1 for home in homes.values())


def test_balanced_split_depends_on_its_seed_and_puts_large_sets_into_train() -> None:
    names = ["large"] * 30 + [f"s{i}" for i in range(70)]
    draws = [balanced_parts(names, (0.8, 0.1, 0.1), seed) for seed in range(4)]
    for train, val, test in draws:
        check_is_partition((train, val, test), 100)
        assert set(range(30)) <= set(train)
        assert [len(train), len(val), len(test)] == [80, 10, 10]
    assert draws[0] == balanced_parts(names, (0.8, 0.1, 0.1), 0)
    assert len({tuple(test) for _, _, test in draws}) == 4


def column_file(folder: Path, words: list[str], name: str = "x.csv") -> Path:
    rows = "".join(f"{'C' * (i + 1)},{i},{word}\n" for i, word in enumerate(words))
    path = folder / name
    path.write_text(f"smiles,y,Split\n{rows}")
    return path


def test_split_column_of_the_users_own(tmp_path: Path) -> None:
    words = ["train", "Valid", "test", "TRAINING", "validation", "val", "test"]
    table = read_table(column_file(tmp_path, words))
    split = make_split(table, DataSettings(split="column"))
    assert [list(split.part(part)) for part in PARTS] == [[0, 3], [1, 4, 5], [2, 6]]


def test_unknown_word_in_a_split_column_is_named_by_line(tmp_path: Path) -> None:
    table = read_table(column_file(tmp_path, ["train", "holdout", "test"]))
    with pytest.raises(DataError, match=r"x\.csv:3: the split 'holdout' is not known"):
        make_split(table, DataSettings(split="column"))


def test_split_column_without_validation_is_refused(tmp_path: Path) -> None:
    table = read_table(column_file(tmp_path, ["train", "train", "test"]))
    with pytest.raises(DataError, match="leaves val empty"):
        make_split(table, DataSettings(split="column"))


def test_a_molecule_in_two_parts_is_refused_though_its_rows_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("smiles,y,split\nCCO,1,train\nCCN,2,val\nCCC,3,test\nOCC,9,test\n")
    with pytest.raises(DataError, match=r"x\.csv:5: the molecule is 'test' here and 'train' at"):
        make_split(read_table(path), DataSettings(split="column"))
    path.write_text("smiles,y,split\nCCO,1,train\nCCN,2,val\nCCC,3,test\nOCC,9,train\n")
    split = make_split(read_table(path), DataSettings(split="column"))
    assert list(split.columns(3)) == ["train", "val", "test"]


def test_split_file_is_read_with_the_columns_that_were_named(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,mol,y,split\nCCCCC,CCO,1,train\nC,CCN,2,val\nCC,CCC,3,test\n")
    table = read_table(path, smiles_column="mol")
    settings = DataSettings(split="column", split_file=str(path), smiles_column="mol")
    assert list(make_split(table, settings).columns(3)) == ["train", "val", "test"]


def test_split_file_goes_by_molecule(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["CCO", "CCN", "CCC"])
    path = tmp_path / "s.csv"
    path.write_text("smiles,split\nCCC,test\nOCC,train\nNCC,val\nCCCC,train\n")
    split = make_split(table, DataSettings(split="column", split_file=str(path)))
    assert list(split.columns(3)) == ["train", "val", "test"]


def test_split_file_that_lacks_molecules_or_contradicts_itself(tmp_path: Path) -> None:
    table = table_of(tmp_path, ["CCO", "CCN", "CCC"])
    path = tmp_path / "s.csv"
    settings = DataSettings(split="column", split_file=str(path))
    path.write_text("smiles,split\nCCC,test\nOCC,train\n")
    with pytest.raises(DataError, match=r"no row for 1 of 3 molecules.*x\.csv:3"):
        make_split(table, settings)
    path.write_text("smiles,split\nCCC,test\nOCC,train\nCCO,val\n")
    with pytest.raises(DataError, match=r"s\.csv:4.*'val' here and 'train'"):
        make_split(table, settings)


@pytest.mark.parametrize("name", ["reference", "random", "scaffold", "scaffold_balanced"])
def test_too_few_molecules_are_refused(tmp_path: Path, name: str) -> None:
    table = table_of(tmp_path, ["C" * k for k in range(1, 10)])
    with pytest.raises(DataError, match="too few"):
        make_split(table, DataSettings.model_validate({"split": name}))


def test_part_without_rows_is_refused(molecules: MoleculeTable) -> None:
    with pytest.raises(DataError, match="leaves test empty"):
        make_split(molecules, DataSettings(split="random", fractions=(0.9, 0.1, 0.0)))


def test_fingerprint_names_the_rows(molecules: MoleculeTable) -> None:
    def fingerprint(seed: int) -> str:
        return make_split(molecules, DataSettings(split="random", split_seed=seed)).fingerprint()

    assert fingerprint(0) == fingerprint(0)
    assert len({fingerprint(seed) for seed in range(5)}) == 5


@pytest.mark.parametrize("name", ["s.csv", "s.tsv", "s.csv.gz", "deeper/s.csv"])
def test_split_that_is_written_is_read_back(
    molecules: MoleculeTable, tmp_path: Path, name: str
) -> None:
    split = make_split(molecules, DataSettings(split="random"))
    write_split(molecules, split, tmp_path / name)
    again = read_table(tmp_path / name)
    assert again.smiles == molecules.smiles
    assert list(again.labels) == list(molecules.labels)
    assert make_split(again, DataSettings(split="column")).fingerprint() == split.fingerprint()


def test_written_split_replaces_an_older_column(tmp_path: Path) -> None:
    table = read_table(column_file(tmp_path, ["test"] * 10 + ["train"] * 10))
    split = make_split(table, DataSettings(split="random"))
    write_split(table, split, tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == "smiles,y,split"


def test_split_of_the_real_data(data_dir: Path) -> None:
    table = read_table(data_dir / "lipophilicity.csv")
    for name in ("reference", "random", "scaffold", "scaffold_balanced"):
        split = make_split(table, DataSettings.model_validate({"split": name}))
        sizes = Counter(split.columns(len(table)).tolist())
        wanted = (3024, 336, 840) if name == "reference" else (3360, 420, 420)
        assert (sizes["train"], sizes["val"], sizes["test"]) == wanted
