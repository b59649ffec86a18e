import json
import time
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.chem import audit as audit_module
from lipo_cli.chem.audit import AuditReport, audit_secondary
from lipo_cli.chem.datasets import DEMO_FOLDER
from lipo_cli.chem.fingerprints import highest_tanimoto, morgan_bits, squared_distances
from lipo_cli.chem.splits import Split, make_split
from lipo_cli.chem.tables import MoleculeTable, read_table
from lipo_cli.errors import DataError
from lipo_cli.settings import DataSettings


@pytest.fixture(scope="module")
def real(data_dir: Path) -> tuple[MoleculeTable, Split]:
    primary = read_table(data_dir / "lipophilicity.csv")
    return primary, make_split(primary, DataSettings(split="reference"))


@pytest.fixture(scope="module")
def demo() -> tuple[MoleculeTable, Split]:
    primary = read_table(DEMO_FOLDER / "primary.csv")
    return primary, make_split(primary, DataSettings(split="reference"))


@pytest.fixture(scope="module")
def of_the_300(real: tuple[MoleculeTable, Split], data_dir: Path) -> AuditReport:
    started = time.monotonic()
    report = audit_secondary(read_table(data_dir / "secondary.csv"), *real)
    assert time.monotonic() - started < 30
    return report


def level(report: AuditReport, name: str) -> str:
    return report.finding(name).level


def test_the_300_labels_are_found_to_be_neighbour_means(of_the_300: AuditReport) -> None:
    figures = of_the_300.figures
    assert figures["neighbour_k"] == 5
    assert figures["neighbour_unambiguous"] == figures["neighbour_matched"] == 177
    assert figures["neighbour_ambiguous_matched"] == 123
    assert level(of_the_300, "neighbour labels") == "fail"
    assert level(of_the_300, "neighbour fit") == "fail"
    assert "177 of 177" in of_the_300.one_line
    assert of_the_300.level == "fail"
    assert "not measurements" in of_the_300.verdict


def test_the_300_use_test_rows(
    of_the_300: AuditReport, real: tuple[MoleculeTable, Split], data_dir: Path
) -> None:
    low, high = (
        of_the_300.figures["neighbour_test_rows_min"],
        of_the_300.figures["neighbour_test_rows_max"],
    )
    primary, split = real
    secondary = read_table(data_dir / "secondary.csv")
    distances = squared_distances(morgan_bits(secondary.smiles), morgan_bits(primary.smiles))
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :5]
    used = int(np.isin(nearest, split.test).any(axis=1).sum())
    assert low is not None
    assert high is not None
    assert low <= used <= high
    assert low > 150


def test_the_300_overlap_order_and_disagreement_are_found(of_the_300: AuditReport) -> None:
    assert (
        of_the_300.figures["canonical_duplicates"],
        of_the_300.figures["skeleton_duplicates"],
    ) == (10, 27)
    assert level(of_the_300, "overlap") == "warn"
    assert level(of_the_300, "label disagreement") == "fail"
    assert level(of_the_300, "row order by similarity") == "warn"
    assert of_the_300.figures["row_order_similarity_explained"] > 0.8
    assert level(of_the_300, "label granularity") == "warn"
    assert level(of_the_300, "distribution shift") == "warn"
    assert of_the_300.figures["label_step"] == pytest.approx(0.002)


def test_nothing_of_the_kind_is_found_in_measured_labels(
    real: tuple[MoleculeTable, Split], data_dir: Path
) -> None:
    report = audit_secondary(read_table(data_dir / "external_logd.csv"), *real)
    for name in (
        "neighbour labels",
        "neighbour fit",
        "overlap",
        "label disagreement",
        "label granularity",
        "row order by similarity",
        "duplicates",
    ):
        assert level(report, name) == "ok", name
    assert report.level != "fail"


def test_demo_set_passes(demo: tuple[MoleculeTable, Split]) -> None:
    report = audit_secondary(read_table(DEMO_FOLDER / "secondary.csv"), *demo)
    assert [f.name for f in report.findings if f.level == "fail"] == []
    assert level(report, "overlap") == "ok"
    assert level(report, "label range") == "ok"
    assert level(report, "row order by label") == "ok"


def test_part_of_the_primary_set_given_as_secondary_is_seen(
    demo: tuple[MoleculeTable, Split], tmp_path: Path
) -> None:
    lines = (DEMO_FOLDER / "primary.csv").read_text().splitlines()
    path = tmp_path / "s.csv"
    path.write_text("\n".join([lines[0], *lines[1:101]]))
    report = audit_secondary(read_table(path), *demo)
    assert level(report, "overlap") == "warn"
    assert report.figures["canonical_duplicates"] == 100
    assert report.figures["label_rmse_on_shared"] == 0
    assert level(report, "label disagreement") == "ok"


def test_measured_again_in_another_laboratory_is_no_rule(
    demo: tuple[MoleculeTable, Split], tmp_path: Path
) -> None:
    primary, split = demo
    rng = np.random.default_rng(0)
    rows = rng.choice(split.train, 200, replace=False)
    measured = primary.labels[rows] + rng.normal(0, 0.2, size=len(rows))
    path = tmp_path / "s.csv"
    lines = [f"{primary.smiles[i]},{y:.2f}" for i, y in zip(rows, measured, strict=True)]
    path.write_text("\n".join(["smiles,logd", *lines]))
    report = audit_secondary(read_table(path), primary, split)
    assert level(report, "neighbour fit") == "ok"
    assert report.level != "fail"


def test_the_order_of_rows_alone_disqualifies_nothing(
    real: tuple[MoleculeTable, Split], data_dir: Path, tmp_path: Path
) -> None:
    table = read_table(data_dir / "external_logd.csv")
    bits, known = morgan_bits(table.smiles), morgan_bits(real[0].smiles)
    order = np.argsort(-highest_tanimoto(bits, known), kind="stable")
    path = tmp_path / "sorted.csv"
    lines = [f"{table.smiles[i]},{table.labels[i]}" for i in order]
    path.write_text("\n".join(["smiles,logd", *lines]))
    report = audit_secondary(read_table(path), *real)
    assert level(report, "row order by similarity") == "warn"
    assert report.level == "warn"


def test_a_draw_of_a_large_set_finds_the_same_rule(
    real: tuple[MoleculeTable, Split], data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MOST_ASKED", 120)
    report = audit_secondary(read_table(data_dir / "secondary.csv"), *real)
    assert level(report, "neighbour labels") == "fail"
    assert report.figures["neighbour_k"] == 5
    assert "of 120 rows" in report.finding("neighbour labels").value
    assert report.figures["skeleton_duplicates"] == 27, "the overlap is that of all rows"


def test_given_features_decide_the_shift(demo: tuple[MoleculeTable, Split]) -> None:
    primary, split = demo
    secondary = read_table(DEMO_FOLDER / "secondary.csv")
    rng = np.random.default_rng(0)
    alike = (rng.normal(size=(300, 5)), rng.normal(size=(len(primary), 5)))
    assert (
        level(audit_secondary(secondary, primary, split, features=alike), "distribution shift")
        == "ok"
    )
    apart = (alike[0] + 1.0, alike[1])
    report = audit_secondary(secondary, primary, split, features=apart)
    assert level(report, "distribution shift") == "warn"


def test_report_is_plain_values_and_the_same_each_time(demo: tuple[MoleculeTable, Split]) -> None:
    secondary = read_table(DEMO_FOLDER / "secondary.csv")
    first = json.dumps(audit_secondary(secondary, *demo).as_dict(), allow_nan=False)
    assert first == json.dumps(audit_secondary(secondary, *demo).as_dict(), allow_nan=False)


def test_set_without_labels_is_refused(demo: tuple[MoleculeTable, Split], tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("smiles\nCCO\nCCN\n")
    with pytest.raises(DataError, match="labelled"):
        audit_secondary(read_table(path, require_label=False), *demo)


def test_tiny_set_is_audited(demo: tuple[MoleculeTable, Split], tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("smiles,y\nCCO,0.1\nCCN,0.2\nCCS,0.4\n")
    assert audit_secondary(read_table(path), *demo).level in ("ok", "warn")
