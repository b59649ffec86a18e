import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lipo_cli.chem import datasets, downloads
from lipo_cli.chem.datasets import load_dataset
from lipo_cli.chem.description import describe, token_lengths
from lipo_cli.chem.downloads import RemoteFile, fetch
from lipo_cli.chem.tables import read_table
from lipo_cli.errors import DataError, NetworkError
from lipo_cli.settings import DataSettings

PRIMARY_TEXT = b"id,exp,smiles\n" + b"".join(
    b"m%d,%d,%s\n" % (i, i, b"C" * i) for i in range(1, 21)
)
SECONDARY_TEXT = b"SMILES,Label\nCO,1\nCCO,2\n"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIPO_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("LIPO_DATA_DIR", "")
    monkeypatch.delenv("LIPO_DATA_DIR")


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small stand-ins for the published files, so that their checksums can be right."""
    for name, content in (("PRIMARY", PRIMARY_TEXT), ("SECONDARY", SECONDARY_TEXT)):
        remote = replace(getattr(downloads, name), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(datasets, name, remote)


def fill(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lipophilicity.csv").write_bytes(PRIMARY_TEXT)
    (folder / "secondary.csv").write_bytes(SECONDARY_TEXT)
    return folder


def test_auto_is_the_demo_where_the_real_data_is_not() -> None:
    found = load_dataset(DataSettings())
    assert found.name == "demo"
    assert "lipo data fetch" in found.hint
    assert found.secondary is not None


def test_auto_is_the_real_data_in_the_cache(published: None, tmp_path: Path) -> None:
    fill(tmp_path / "cache" / "data")
    found = load_dataset(DataSettings())
    assert found.name == "lipophilicity"
    assert "--dataset demo" in found.hint
    assert found.secondary is not None
    assert (len(found.primary), len(found.secondary)) == (20, 2)
    assert found.known_corruption is None


def test_environment_goes_before_the_cache_and_the_option_before_both(
    published: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cache/data", "env", "option"):
        fill(tmp_path / name)
    monkeypatch.setenv("LIPO_DATA_DIR", str(tmp_path / "env"))
    assert load_dataset(DataSettings()).primary.path.parent == tmp_path / "env"
    settings = DataSettings(data_dir=str(tmp_path / "option"))
    assert load_dataset(settings).primary.path.parent == tmp_path / "option"


def test_real_data_asked_for_and_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lipo data fetch"):
        load_dataset(DataSettings(dataset="lipophilicity"))
    with pytest.raises(DataError, match=r"holds no lipophilicity\.csv"):
        load_dataset(DataSettings(data_dir=str(tmp_path)))


def test_file_with_the_published_name_and_other_bytes_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with pytest.raises(DataError, match=r"is not the published lipophilicity\.csv.*sha256"):
        load_dataset(DataSettings(data_dir=str(tmp_path / "data")))


def test_real_data_without_its_secondary_set(published: None, tmp_path: Path) -> None:
    (fill(tmp_path / "data") / "secondary.csv").unlink()
    assert load_dataset(DataSettings(data_dir=str(tmp_path / "data"))).secondary is None


def test_own_file_and_own_secondary(tmp_path: Path) -> None:
    primary, secondary = tmp_path / "p.csv", tmp_path / "s.csv"
    primary.write_bytes(PRIMARY_TEXT)
    secondary.write_bytes(SECONDARY_TEXT)
    settings = DataSettings(dataset=str(primary), secondary=str(secondary))
    found = load_dataset(settings)
    assert found.name == "p.csv"
    assert found.secondary is not None
    assert found.secondary.label_column == "Label"
    assert load_dataset(DataSettings(dataset=str(primary))).secondary is None


def test_label_named_for_the_primary_must_be_in_a_given_secondary(tmp_path: Path) -> None:
    primary, secondary = tmp_path / "p.csv", tmp_path / "s.csv"
    primary.write_bytes(PRIMARY_TEXT)
    secondary.write_text("smiles,pKa,label\nCO,15.5,1\nCCO,15.9,2\n")
    given = {"dataset": str(primary), "secondary": str(secondary), "label_column": "exp"}
    with pytest.raises(DataError) as raised:
        load_dataset(DataSettings(**given))
    line = str(raised.value)
    assert line.startswith(f"{secondary}: has no column 'exp'")
    assert "rename the column" in line
    assert "smiles, pKa, label" in line
    secondary.write_text("smiles,label,EXP\nCO,15.5,1\nCCO,15.9,2\n")
    found = load_dataset(DataSettings(**given)).secondary
    assert found is not None
    assert (found.label_column, found.labels.tolist()) == ("EXP", [1, 2])


def test_smiles_are_smiles_under_any_name(tmp_path: Path) -> None:
    primary, secondary = tmp_path / "p.csv", tmp_path / "s.csv"
    primary.write_text("drug,y\n" + "".join(f"{'C' * i},{i}\n" for i in range(1, 21)))
    secondary.write_text("SMILES,y\nCO,1\nCCO,2\n")
    settings = DataSettings(dataset=str(primary), secondary=str(secondary), smiles_column="drug")
    found = load_dataset(settings).secondary
    assert found is not None
    assert found.smiles == ["CO", "CCO"]


def test_the_label_of_a_dataset_of_ours_may_be_named(published: None, tmp_path: Path) -> None:
    folder = fill(tmp_path / "data")
    found = load_dataset(DataSettings(data_dir=str(folder), label_column="exp"))
    assert found.secondary is not None
    assert (found.primary.label_column, found.secondary.label_column) == ("exp", "Label")


def test_environment_that_names_a_folder_without_the_data_is_mentioned(
    published: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIPO_DATA_DIR", str(tmp_path))
    warning = f"LIPO_DATA_DIR is {tmp_path}, which holds no lipophilicity.csv; "
    assert load_dataset(DataSettings()).hint.startswith(warning)
    fill(tmp_path / "cache" / "data")
    found = load_dataset(DataSettings())
    assert found.name == "lipophilicity"
    assert found.hint.startswith(warning)
    named = load_dataset(DataSettings(data_dir=str(tmp_path / "cache" / "data")))
    assert "LIPO_DATA_DIR" not in named.hint


def test_secondary_can_replace_that_of_the_demo(tmp_path: Path) -> None:
    secondary = tmp_path / "s.csv"
    secondary.write_bytes(SECONDARY_TEXT)
    found = load_dataset(DataSettings(dataset="demo", secondary=str(secondary)))
    assert found.secondary is not None
    assert found.secondary.path == secondary
    assert found.known_corruption is None


def test_name_that_is_neither_a_dataset_nor_a_file() -> None:
    with pytest.raises(DataError, match="auto, lipophilicity, demo"):
        load_dataset(DataSettings(dataset="lipofilicity"))
    with pytest.raises(DataError, match="does not exist"):
        load_dataset(DataSettings(dataset="nowhere/p.csv"))


# Downloads, from a server on loopback.


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = fill(tmp_path / "server")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def serve_from(
    monkeypatch: pytest.MonkeyPatch, *urls: str, sha256: str | None = None
) -> RemoteFile:
    remote = RemoteFile(
        "lipophilicity.csv", urls, sha256 or hashlib.sha256(PRIMARY_TEXT).hexdigest(), "stand-in"
    )
    monkeypatch.setattr(downloads, "SOURCES", {"lipophilicity": (remote,)})
    return remote


@pytest.mark.server
def test_fetch_puts_the_file_into_the_cache(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"{server}/lipophilicity.csv")
    (path,) = fetch("lipophilicity")
    assert path == tmp_path / "cache" / "data" / "lipophilicity.csv"
    assert path.read_bytes() == PRIMARY_TEXT
    serve_from(monkeypatch, "http://127.0.0.1:9/never-asked")
    assert fetch("lipophilicity") == (path,)


@pytest.mark.server
def test_fetch_into_a_folder_and_from_a_copy(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"{server}/gone.csv", f"{server}/lipophilicity.csv")
    (path,) = fetch("lipophilicity", folder=tmp_path / "here")
    assert path.read_bytes() == PRIMARY_TEXT


@pytest.mark.server
def test_wrong_checksum_is_one_line_and_leaves_no_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"{server}/secondary.csv")
    with pytest.raises(NetworkError) as raised:
        fetch("lipophilicity", folder=tmp_path / "here")
    line = str(raised.value)
    assert "\n" not in line
    assert "wrong checksum" in line
    assert "--data-dir" in line
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.server
def test_missing_page_says_what_the_server_answered(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_from(monkeypatch, f"{server}/gone.csv")
    with pytest.raises(NetworkError, match="answers 404"):
        fetch("lipophilicity")


def test_unreachable_host_is_one_line_with_what_to_do_by_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    remote = serve_from(monkeypatch, "http://127.0.0.1:9/lipophilicity.csv")
    with pytest.raises(NetworkError) as raised:
        fetch("lipophilicity")
    line = str(raised.value)
    assert "\n" not in line
    assert "cannot be reached" in line
    assert "by hand" in line
    assert remote.sha256 in line
    assert raised.value.exit_code == 8


def test_only_what_is_published_can_be_fetched() -> None:
    with pytest.raises(DataError, match="lipophilicity"):
        fetch("demo")


def test_sources_are_pinned_to_commits() -> None:
    for remote in downloads.SOURCES["lipophilicity"]:
        assert len(remote.sha256) == 64
        for url in remote.urls:
            assert len(url.split("/")[5]) == 40


def test_sources_are_the_real_files(data_dir: Path) -> None:
    for remote in (downloads.PRIMARY, downloads.SECONDARY):
        downloads.check_published(data_dir / remote.name, remote)


# Descriptions.


def test_description_counts_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    rows = "CCO,1\nOCC,3\nC[C@H](N)O,2\nC[C@@H](N)O,4\nC(,1\n"
    path.write_bytes(gzip.compress(f"smiles,y\n{rows}".encode()))
    found = describe(read_table(path, on_invalid="skip"), max_length=9, bins=2)
    assert (found.n_rows_read, found.n_bad_rows, found.n_molecules) == (5, 1, 3)
    assert (found.n_merged_rows, found.largest_label_spread) == (1, 2)
    assert (found.n_skeletons, found.n_stereo_groups) == (2, 1)
    assert found.histogram == ((2.0, 3.0, 2), (3.0, 4.0, 1))


def test_token_lengths_count_begin_and_end() -> None:
    found = token_lengths(["CCO", "c1ccccc1", "Cl[13CH3]"], max_length=9)
    assert found.longest == 10
    assert found.mean == pytest.approx((5 + 10 + 4) / 3)
    assert found.n_truncated == 1
    assert found.distinct == 6
    assert found.n_unmatched == 0


def test_tokens_of_the_real_data(data_dir: Path) -> None:
    found = describe(read_table(data_dir / "lipophilicity.csv")).tokens
    assert (found.n_truncated, found.longest, found.n_unmatched) == (1, 207, 0)
