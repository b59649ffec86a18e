"""The commands around the registry: model, predict on the champion, and MLflow's own predict."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lipo_cli.commands.model_output import _control, _difference
from lipo_cli.main import main
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store

SMILES = ["OCC", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]


SUMMARY = [
    {"selection": "none", "peft": "lora", "test_rmse": 0.8, "n_seeds": 3},
    {
        **{"selection": "tsds", "peft": "lora", "test_rmse": 0.76, "n_seeds": 3},
        **{"n_selected": 24, "n_train": 88, "delta_none": -0.04, "delta_low": -0.06},
        **{"delta_high": -0.02, "delta_random": -0.01},
    },
]


@pytest.fixture
def champion(store: Store, tmp_path: Path) -> Path:
    """A registered champion; returns its saved folder."""
    from lipo_cli.model.regressor import Regressor
    from lipo_cli.settings import TrainingSettings

    settings = TrainingSettings(precision="float32", device="cpu")
    regressor = Regressor.from_base("lora", settings, seed=0)
    regressor.set_label_scale(np.array([0.5, 2.0, 3.5]))
    folder = tmp_path / "saved"
    regressor.save(folder)
    audit = {"audit": "warn", "audit_line": "Audit of b.csv: 1 to look at."}
    with start_run(store, "lipo", "comparison", tags=audit) as comparison:
        with start_run(store, "lipo", "x") as run:
            run.metrics({"test_rmse": 0.75})
            uri = run.model(folder, SMILES)
        result = tmp_path / "result.json"
        result.write_text(json.dumps({"summary": SUMMARY}))
        comparison.file(result, "result")
        evidence = {"selection": "tsds", "peft": "lora", "seed": 0, "base": "small"}
        evidence |= {"dataset": "mine.csv", "split": "scaffold"}
        promote_champion(
            store,
            run.run_id,
            uri,
            "lipophilicity",
            metric_value=0.7,
            scope="s",
            evidence=evidence,
            comparison_run_id=comparison.run_id,
        )
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("id,smiles\n" + "".join(f"{i},{s}\n" for i, s in enumerate(SMILES)))
    return path


def predictions(path: Path) -> np.ndarray:
    with path.open() as stream:
        return np.array([float(row["prediction"]) for row in csv.DictReader(stream)])


@pytest.mark.slow
def test_lipo_and_mlflow_agree_on_the_champion(
    store: Store, champion: Path, table: Path, tmp_path: Path
) -> None:
    from lipo_cli.model.regressor import Regressor

    ours, from_folder, theirs = (tmp_path / name for name in ("a.csv", "b.csv", "c.json"))
    assert main(["predict", str(table), "--store", str(store.root), "--out", str(ours)]) == 0
    folder = ["--model", str(champion)]
    assert main(["predict", str(table), *folder, "--out", str(from_folder)]) == 0
    only = tmp_path / "only.csv"
    only.write_text("smiles\n" + "".join(f"{s}\n" for s in SMILES))
    command = [sys.executable, "-m", "mlflow", "models", "predict"]
    command += ["-m", "models:/lipophilicity@champion", "-i", str(only), "-t", "csv"]
    command += ["-o", str(theirs), "--env-manager", "local"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    answered = json.loads(theirs.read_text())["predictions"]
    mlflow_says = np.array([row["prediction"] for row in answered])
    expected = Regressor.load(champion).predict(
        ["CCO", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]
    )
    for found in (predictions(ours), predictions(from_folder), mlflow_says):
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_model_list_and_show(
    store: Store, champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.root)]
    assert main(["model", "list", *where]) == 0
    shown = capsys.readouterr().out
    for word in ("lipophilicity", "champion", "0.7000", "tsds", "lora", "mine.csv", "scaffold"):
        assert word in shown
    assert main(["model", "list", "--json", *where]) == 0
    (version,) = json.loads(capsys.readouterr().out)
    assert (version["model"], version["version"]) == ("lipophilicity", "1")
    assert version["aliases"] == ["champion"]
    assert version["tags"]["seed"] == "0"


def lines_of(text: str) -> dict[str, str]:
    """The rows of `lipo model show`: the first word(s), two spaces, the rest."""
    rows = (line.strip().split("  ", maxsplit=1) for line in text.splitlines())
    return {name: rest.strip() for name, rest in rows}


def test_model_show_reads_as_text_and_as_data(
    store: Store, champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.root)]
    assert main(["model", "show", *where]) == 0
    shown = lines_of(capsys.readouterr().out)
    assert shown["model"] == "lipophilicity version 1, @champion"
    assert shown["dataset"] == "mine.csv"
    assert shown["split"] == "scaffold"
    assert shown["method"] == "lora, seed 0"
    assert shown["selection"] == "tsds, 24 secondary points beside 64 primary ones"
    assert shown["base model"] == "small"
    assert shown["validation RMSE"].startswith("0.7000 ")
    assert shown["test RMSE"].startswith("0.7500 ")
    assert shown["control"] == "none with lora: test RMSE 0.8000, its row 0.7600, means of 3 seeds"
    assert shown["difference"].startswith("-0.0400 [-0.0600, -0.0200], 95 % over 3 seeds")
    assert "as many random points -0.0100" in shown["difference"]
    assert shown["secondary audit"] == "warn: Audit of b.csv: 1 to look at."
    command = f"lipo predict FILE --model models:/lipophilicity/1 --store {store.root}"
    assert shown["predict with"] == command
    assert main(["model", "show", "lipophilicity/1", "--json", *where]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["dataset"], data["peft"], data["base"]) == ("mine.csv", "lora", "small")
    assert (data["val_rmse"], data["test_rmse"], data["delta_none"]) == (0.7, 0.75, -0.04)
    assert data["control"] == {"selection": "none", "peft": "lora", "test_rmse": 0.8, "n_seeds": 3}
    assert (data["audit"], data["predict"]) == ("warn", command)
    assert shown["run"] == data["run_id"]
    assert data["tags"]["seed"] == "0"


def test_what_is_not_known_of_a_model_is_said_so(
    store: Store, champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in store.client().get_model_version("lipophilicity", "1").tags:
        store.client().delete_model_version_tag("lipophilicity", "1", tag)
    assert main(["model", "show", "--store", str(store.root)]) == 0
    shown = lines_of(capsys.readouterr().out)
    for name in ("dataset", "validation RMSE", "control", "difference", "secondary audit"):
        assert shown[name] == "not recorded"
    # Its run is still there.
    assert shown["test RMSE"].startswith("0.7500 ")


def test_promotion_needs_a_version_that_is_there(
    store: Store, champion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("9", "lipophilicity", "lipophilicity/9", "lipophilicity@1"):
        assert main(["model", "promote", name, "--store", str(store.root)]) == 4
        (line,) = capsys.readouterr().err.splitlines()
        assert "lipophilicity has version 1 (@champion)" in line
        assert "models:/NAME/VERSION" in line
    assert main(["model", "promote", "lipophilicity/1", "--store", str(store.root)]) == 0


def test_a_registered_name_without_its_scheme_is_explained(
    store: Store, champion: Path, table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--model", "lipophilicity@1", "--store", str(store.root)]
    assert main(["predict", str(table), *where]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "models:/NAME/VERSION or models:/NAME@ALIAS" in captured.err
    assert "lipophilicity has version 1 (@champion)" in captured.err


def test_prediction_names_the_version(
    store: Store, champion: Path, table: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "o.csv"), "--json"]
    assert main(["predict", str(table), "--store", str(store.root), *out]) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == (
        "model: lipophilicity version 1, @champion: lora, fine-tuned on mine.csv, split scaffold, "
        "selection tsds, validation RMSE 0.7000"
    )
    about = json.loads(captured.out)["predicted_by"]
    assert (about["model"], about["version"], about["peft"]) == ("lipophilicity", "1", "lora")


def test_an_exported_folder_predicts_the_same(
    store: Store, champion: Path, table: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    where = ["--store", str(store.root)]
    folder, ours, theirs = (tmp_path / name for name in ("new/exported", "a.csv", "b.csv"))
    assert main(["model", "export", "lipophilicity@champion", "--out", str(folder), *where]) == 0
    assert f"lipo predict FILE --model {folder}" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {path.name for path in champion.iterdir()}
    assert [path.name for path in folder.parent.iterdir()] == ["exported"]
    assert main(["predict", str(table), *where, "--out", str(ours)]) == 0
    assert main(["predict", str(table), "--model", str(folder), "--out", str(theirs)]) == 0
    assert ours.read_text() == theirs.read_text()
    assert f"model: {folder}: lora" in capsys.readouterr().err


def test_export_writes_over_nothing(
    store: Store, champion: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    full, file = tmp_path / "full", tmp_path / "file"
    full.mkdir()
    (full / "precious").touch()
    file.touch()
    for place in (full, file):
        export = ["model", "export", "lipophilicity", "--out", str(place)]
        assert main([*export, "--store", str(store.root)]) == 2
        assert capsys.readouterr().err.startswith("error: --out: ")
    assert [path.name for path in full.iterdir()] == ["precious"]
    absent = ["model", "export", "lipophilicity/2", "--out", str(tmp_path / "no")]
    assert main([*absent, "--store", str(store.root)]) == 4
    assert not (tmp_path / "no").exists()


def test_model_show_of_nothing_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.root)]
    assert main(["model", "show", "models:/nothing@champion", *where]) == 4
    assert main(["model", "list", *where]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2


@pytest.mark.parametrize(
    ("n_splits", "of_splits", "low", "means", "difference"),
    [
        (1, 1, -0.1, "means of 2 seeds", "95 % over 2 seeds"),
        (3, 3, -0.1, "means of 2 cells (seeds of 3 splits)", "95 % over 3 splits"),
        (2, 3, -0.1, "of 2 of 3 splits, which do not compare with all", "95 % over 2 splits"),
        (1, 3, None, "of 1 of 3 splits, which do not compare with all", "one split tells no"),
        (1, 1, None, "means of 2 seeds", "one seed tells no"),
        (None, None, -0.1, "means of 2 seeds", "95 % over 2 seeds"),  # a record of before
    ],
)
def test_what_numbers_are_of_is_said(
    n_splits: int | None, of_splits: int | None, low: float | None, means: str, difference: str
) -> None:
    content = {
        "n_seeds": 2, "n_splits": n_splits, "of_splits": of_splits, "test_rmse_over_seeds": 0.6,
        "control": {"selection": "none", "peft": "lora", "test_rmse": 0.7},
        "delta_none": -0.05, "delta_low": low, "delta_high": None if low is None else 0.02,
        "delta_random": None,
    }  # fmt: skip
    assert _control(content).endswith(means)
    assert difference in _difference(content)
