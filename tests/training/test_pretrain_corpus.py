"""Reading molecules from any file, and what is left out of a corpus."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.errors import DataError, Interrupted
from lipo_cli.training import corpus as corpus_module
from lipo_cli.training.corpus import Corpus, gather_corpus
from lipo_cli.training.corpus_lines import read_smiles
from lipo_cli.training.pretrain_source import excluded_skeletons
from tests.fixtures.corpora import regular_molecules, write_lines


def gather(smiles: list[str], **options: object) -> Corpus:
    arguments: dict[str, object] = {"max_length": 202, **options}
    return gather_corpus(enumerate(smiles, start=1), "here.smi", **arguments)  # type: ignore[arg-type]


def test_smi_lines_carry_names_that_are_not_read(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.smi", ["CCO ethanol", "", "CCN\t\"amine, 5'-x", "C"])
    assert list(read_smiles(file)) == [(1, "CCO"), (3, "CCN"), (4, "C")]


def test_heading_of_a_smi_file_is_no_molecule(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.txt", ["SMILES id", "CCO 1"])
    assert list(read_smiles(file)) == [(2, "CCO")]


@pytest.mark.parametrize("packed", [False, True])
def test_table_column_is_found_by_name(tmp_path: Path, packed: bool) -> None:
    text = "id,smiles\n1,CCO\n2,\n3,CCN\n"
    file = tmp_path / ("a.csv.gz" if packed else "a.csv")
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert list(read_smiles(file)) == [(2, "CCO"), (3, ""), (4, "CCN")]


def test_named_column_makes_any_file_a_table(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.txt", ["x\tmol", "1\tCCO"])
    assert list(read_smiles(file, "mol")) == [(2, "CCO")]


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "a.smi"
    file.write_bytes(gzip.compress(b"CCO\n"))
    assert list(read_smiles(file)) == [(1, "CCO")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.smi.gz", gzip.compress(b"CCO\n" * 1000, mtime=0)[:-12], "cut short"),
        ("a.smi.gz", b"CCO\n", "not a sound gzip"),
        ("a.smi", b"CCO\n\xff\xfe\n", "a.smi:2: is not UTF-8"),
        ("a.smi", b"", "holds no SMILES"),
        ("a.smi", b"\n\n", "holds no SMILES"),
        ("a.csv", b"x,y\n1,2\n", "no SMILES column"),
    ],
)
def test_unreadable_file_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_smiles(file))


def test_missing_file_and_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        list(read_smiles(tmp_path / "no.smi"))
    with pytest.raises(DataError, match="directory"):
        list(read_smiles(tmp_path))


def test_lines_are_made_canonical_counted_and_named() -> None:
    corpus = gather(["OCC", "xyz", "CCO", "C(C)(C)(C)(C)C", "c1ccccc1", "C" * 300])
    assert list(corpus) == ["CCO", "c1ccccc1"]
    report = corpus.report
    assert (report.n_read, report.n_kept, report.n_bad) == (6, 2, 2)
    assert (report.n_duplicates, report.n_too_long, report.n_excluded) == (1, 1, 0)
    assert [row.line for row in report.bad_rows] == [2, 4]
    assert "valence" in report.bad_rows[1].reason
    assert report.sentence() == "2 molecules of 6 lines (2 bad, 1 duplicate, 1 too long)"


def test_longest_molecule_counts_bos_and_eos() -> None:
    assert list(gather(["C" * 8, "C" * 9], max_length=10)) == ["C" * 8]


def test_bad_line_ends_the_reading_when_asked() -> None:
    with pytest.raises(DataError, match=r"here\.smi:2: the SMILES has a syntax error: 'xyz'"):
        gather(["CCO", "xyz"], on_invalid="error")


def test_only_the_first_bad_lines_are_kept_but_all_are_counted() -> None:
    report = gather(["CCO", *["?"] * 50]).report
    assert report.n_bad == 50
    assert len(report.bad_rows) == corpus_module.REMEMBERED


def test_nothing_left_names_the_first_bad_line() -> None:
    with pytest.raises(DataError, match=r"here\.smi:1: no molecule is left.*syntax error"):
        gather(["xyz"])


def test_excluded_molecules_are_compared_without_stereo(tmp_path: Path) -> None:
    table = write_lines(tmp_path / "test.csv", ["smiles,exp", "C[C@@H](N)C(=O)O,1", "OCC,2", "?,3"])
    hashes, notes = excluded_skeletons([str(table)])
    corpus = gather(["C[C@H](N)C(=O)O", "CC(N)C(=O)O", "CCO", "CCN"], excluded=hashes)
    assert list(corpus) == ["CCN"]
    assert corpus.report.n_excluded == 3
    assert "2 molecules are left out" in notes[0]
    assert "1 lines unreadable" in notes[0]


def test_exclusion_file_without_molecules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no molecule to leave out"):
        excluded_skeletons([str(write_lines(tmp_path / "x.smi", ["?"]))])


def test_corpus_does_not_depend_on_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_FEW_LINES", 40)
    monkeypatch.setattr(corpus_module, "CHUNK", 16)
    smiles = [*regular_molecules(120), "oops", *regular_molecules(30)]
    here, there = gather(smiles, workers=0), gather(smiles, workers=2)
    assert list(here) == list(there) == smiles[:120]
    assert here.report == there.report
    assert here.tokens == there.tokens


def test_corpus_is_saved_and_read_back(tmp_path: Path) -> None:
    corpus = gather(["OCC", "?", "CCN"])
    corpus.save(tmp_path / "c.npz")
    again = Corpus.load(tmp_path / "c.npz")
    assert list(again) == ["CCO", "CCN"]
    assert again.report == corpus.report
    assert again.flat.dtype == np.uint16


def test_reading_can_be_stopped() -> None:
    def stop() -> None:
        raise Interrupted(15)

    with pytest.raises(Interrupted):
        gather(["CCO"], check=stop)
