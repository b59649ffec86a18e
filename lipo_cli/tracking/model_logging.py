"""A saved regressor as an MLflow model: code and a folder, no pickle, no path of this machine.

`mlflow.transformers` refuses an adapter over a network of our own and `mlflow.pytorch` pickles, so
the model is a pyfunc *from code* (`pyfunc_model.py`) with the saved folder as its artifact.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import lipo_cli
from lipo_cli.errors import TrackingError

ARTIFACT = "regressor"
INPUT_COLUMN = "smiles"
OUTPUT_COLUMN = "prediction"
EXAMPLES = 5

_CODE = Path(__file__).with_name("pyfunc_model.py")
# What a server needs to answer. Our own package is not among them: it is installed from a checkout,
# and the package that bears its name in the public index is somebody else's.
_REQUIRED = (
    "mlflow",
    "numpy",
    "pandas",
    "peft",
    "psutil",
    "pydantic",
    "rdkit",
    "safetensors",
    "scikit-learn",
    "tokenizers",
    "torch",
    "transformers",
)


def signature() -> ModelSignature:
    """Returns the columns in and out, and the one parameter."""
    return ModelSignature(
        inputs=Schema([ColSpec("string", INPUT_COLUMN)]),
        outputs=Schema([ColSpec("double", OUTPUT_COLUMN)]),
        params=ParamSchema([ParamSpec("on_invalid", "string", "error")]),
    )


def requirements() -> list[str]:
    """Returns the packages as installed here, pinned, without local build tags."""
    return [f"{name}=={_public_version(name)}" for name in _REQUIRED]


def log_regressor(
    client: MlflowClient,
    experiment_id: str,
    run_id: str,
    folder: Path,
    example_smiles: Sequence[str],
    name: str,
) -> str:
    """Logs a saved regressor as a model of a run and returns its address `models:/m-...`.

    Raises:
        TrackingError: the folder holds no saved regressor.
    """
    if not (folder / "manifest.json").is_file():
        raise TrackingError("no saved regressor in this folder", where=folder)
    run = client.get_run(run_id)
    logged = client.create_logged_model(
        experiment_id,
        name=name,
        source_run_id=run_id,
        params=run.data.params,
        model_type="regressor",
        tags={"lipo.version": lipo_cli.__version__},
    )
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model"
            # MLflow names the copy after its source: the same name in every model.
            source = shutil.copytree(folder, Path(scratch) / ARTIFACT)
            save_regressor(path, source, example_smiles, run_id=run_id, model_id=logged.model_id)
            client.log_model_artifacts(logged.model_id, str(path))
        _log_model_metrics(client, run_id, logged.model_id, list(run.data.metrics))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    except BaseException:
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.FAILED)
        raise
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    return f"models:/{logged.model_id}"


def save_regressor(
    path: Path,
    folder: Path,
    example_smiles: Sequence[str],
    *,
    run_id: str | None = None,
    model_id: str | None = None,
) -> None:
    """Writes the MLflow model around a saved regressor.

    Args:
        path: The folder to make.
        folder: What `Regressor.save` wrote, in a folder of the name `regressor`.
        example_smiles: Molecules for the input example; the first few are kept.
        run_id: The run that it belongs to.
        model_id: The logged model that it becomes.
    """
    model = Model(artifact_path="model", run_id=run_id, model_uuid=model_id, model_id=model_id)
    mlflow.pyfunc.save_model(
        path=path,
        mlflow_model=model,
        python_model=_CODE,
        artifacts={ARTIFACT: str(folder)},
        signature=signature(),
        input_example=pd.DataFrame({INPUT_COLUMN: list(example_smiles)[:EXAMPLES]}),
        pip_requirements=requirements(),
    )
    _forget_paths(model)
    model.save(str(path / "MLmodel"))


def _forget_paths(model: Model) -> None:
    """Replaces where things came from by where they are inside the model."""
    flavor: dict[str, Any] = model.flavors["python_function"]
    for entry in flavor["artifacts"].values():
        entry["uri"] = entry["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name


def _public_version(name: str) -> str:
    return importlib.metadata.version(name).partition("+")[0]


def _log_model_metrics(
    client: MlflowClient, run_id: str, model_id: str, names: Sequence[str]
) -> None:
    """Shows the run's last numbers on the model's own page too."""
    latest = [client.get_metric_history(run_id, name)[-1] for name in names]
    if latest:
        entries = [
            Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id, run_id=run_id)
            for m in latest
        ]
        client.log_batch(run_id, metrics=entries)
