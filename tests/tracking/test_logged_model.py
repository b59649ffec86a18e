from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lipo_cli.errors import DataError, ModelError
from lipo_cli.tracking.model_logging import requirements
from lipo_cli.tracking.prediction import SLICE, predict_canonical, predict_molecules
from lipo_cli.tracking.registry import promote_champion
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store
from lipo_cli.tracking.versions import regressor_folder

SMILES = ["OCC", "c1ccccc1", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "[Na+].[Cl-]"]

LOAD = """
import json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model(sys.argv[2])
print(json.dumps(model.predict(pd.DataFrame({"smiles": json.loads(sys.argv[3])})).to_dict("list")))
"""


class Lengths:
    """A regressor whose answer is easy to check: the length of the SMILES."""

    def predict(self, smiles: list[str], *, batch_size: int = 256) -> np.ndarray:
        return np.array([len(s) for s in smiles], float)


@pytest.fixture
def logged(store: Store, saved_regressor: Path) -> str:
    with start_run(store, "lipo", "x") as run:
        run.metrics({"val_rmse": 0.7})
        return run.model(saved_regressor, SMILES * 3)


def files_of(store: Store, uri: str) -> Path:
    """The folder of the logged model."""
    return regressor_folder(store, uri).parents[1]


def test_model_loads_in_another_process_with_pickle_disallowed(
    store: Store, logged: str, saved_regressor: Path, tmp_path: Path
) -> None:
    from lipo_cli.model.regressor import Regressor

    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, store.uri, logged, json.dumps(SMILES)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["prediction"]
    expected = predict_molecules(Regressor.load(saved_regressor), SMILES)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_in_the_model_is_pickled_or_names_this_machine(
    store: Store, logged: str, saved_regressor: Path
) -> None:
    folder = files_of(store, logged)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in {".pkl", ".bin", ".pt", ".pickle"}]
    text = (folder / "MLmodel").read_text()
    assert not re.search(r"(^|[\s'\"])/\w|file:|[A-Z]:\\", text), text
    for path in files:
        content = path.read_bytes()
        for place in (str(store.root), str(saved_regressor), str(Path.home()) + "/"):
            assert place.encode() not in content, f"{path.name} names {place}"


def test_signature_and_example_are_there(store: Store, logged: str) -> None:
    from mlflow.models import Model

    model = Model.load(str(files_of(store, logged)))
    assert model.signature.inputs.input_names() == ["smiles"]
    assert model.signature.outputs.input_names() == ["prediction"]
    example = model.load_input_example(str(files_of(store, logged)))
    assert example["smiles"].tolist() == SMILES


def test_requirements_are_pinned_and_installable(store: Store, logged: str) -> None:
    lines = (files_of(store, logged) / "requirements.txt").read_text().splitlines()
    assert lines == requirements()
    # A local tag such as +cpu is in no index, and the index's `lipo` is somebody else's.
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)
    assert not [line for line in lines if line.startswith("lipo")]


def test_files_of_the_current_project_do_not_get_into_the_model(
    store: Store, saved_regressor: Path
) -> None:
    Path("pyproject.toml").write_text("[project]\nname = 'mine'\n")
    Path("uv.lock").write_text("version = 1\n")
    with start_run(store, "lipo", "x") as run:
        uri = run.model(saved_regressor, SMILES)
    assert not {"pyproject.toml", "uv.lock"} & {p.name for p in files_of(store, uri).iterdir()}


def test_model_shows_the_numbers_of_its_run(store: Store, logged: str) -> None:
    model = store.client().get_logged_model(logged.removeprefix("models:/"))
    assert {metric.key: metric.value for metric in model.metrics} == {"val_rmse": 0.7}
    assert str(model.status) == "READY"


def files_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def test_champion_is_the_very_folder_that_was_logged(
    store: Store, logged: str, saved_regressor: Path
) -> None:
    run_id = store.client().get_logged_model(logged.removeprefix("models:/")).source_run_id
    promote_champion(store, run_id, logged, "m", metric_value=0.7, scope="s")
    folder = regressor_folder(store, "models:/m@champion")
    names = files_below(saved_regressor)
    assert files_below(folder) == names
    for name in names:
        assert (folder / name).read_bytes() == (saved_regressor / name).read_bytes()


def test_pyfunc_names_the_row_it_cannot_read_or_answers_nan(logged: str, store: Store) -> None:
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(files_of(store, logged)))
    frame = pd.DataFrame({"smiles": ["CCO", "not a molecule"]}, index=[7, 9])
    with pytest.raises(DataError, match="row 2: not a molecule"):
        model.predict(frame)
    found = model.predict(frame, params={"on_invalid": "nan"})
    assert found.index.tolist() == [7, 9]
    assert found["prediction"].notna().tolist() == [True, False]


def test_molecules_are_canonicalised_and_keep_their_order() -> None:
    found = predict_molecules(Lengths(), ["OCC", None, "C1=CC=CC=C1", " "], on_invalid="nan")
    np.testing.assert_array_equal(found, [3, np.nan, 8, np.nan])
    assert predict_molecules(Lengths(), []).shape == (0,)


def test_slices_hold_molecules_of_like_length_and_the_order_stays() -> None:
    asked: list[list[int]] = []
    done: list[int] = []

    class Asked(Lengths):
        def predict(self, smiles: list[str], *, batch_size: int = 256) -> np.ndarray:
            asked.append([len(s) for s in smiles])
            return super().predict(smiles)

    drawn = np.random.default_rng(0).integers(1, 80, 3 * SLICE)
    molecules = [None if n == 7 else "C" * n for n in drawn]
    found = predict_canonical(Asked(), molecules, on_done=done.append)
    np.testing.assert_array_equal(found, np.where(drawn == 7, np.nan, drawn))
    assert done == [len(lengths) for lengths in asked]
    assert sum(done) == np.count_nonzero(drawn != 7)
    assert max(done) == SLICE
    assert [n for lengths in asked for n in lengths] == sorted(n for n in drawn if n != 7)


def test_nan_from_the_model_is_an_error() -> None:
    class Broken(Lengths):
        def predict(self, smiles: list[str], *, batch_size: int = 256) -> np.ndarray:
            return np.full(len(smiles), np.nan)

    with pytest.raises(ModelError, match="not all finite"):
        predict_canonical(Broken(), ["C"])
