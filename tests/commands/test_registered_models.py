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

from lipo_cli.main import main
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store

SMILES = ["OCC", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]


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
    with start_run(store, "lipo", "x") as run:
        uri = run.model(folder, SMILES)
    evidence = {"selection": "tsds", "peft": "lora", "seed": 0}
    promote_champion(
        store, run.run_id, uri, "lipophilicity", metric_value=0.7, scope="s", evidence=evidence
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
    for word in ("lipophilicity", "champion", "0.7000", "tsds", "lora"):
        assert word in shown
    assert main(["model", "list", "--json", *where]) == 0
    (version,) = json.loads(capsys.readouterr().out)
    assert (version["model"], version["version"]) == ("lipophilicity", "1")
    assert version["aliases"] == ["champion"]
    assert main(["model", "show", *where]) == 0
    assert "val_rmse" in capsys.readouterr().out
    assert main(["model", "show", "models:/lipophilicity/1", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["tags"]["seed"] == "0"


def test_model_show_of_nothing_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(store.root)]
    assert main(["model", "show", "models:/nothing@champion", *where]) == 4
    assert main(["model", "list", *where]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 2
