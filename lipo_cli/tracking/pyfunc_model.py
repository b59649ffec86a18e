"""The code that MLflow keeps beside a saved regressor, and runs to load it.

MLflow executes a copy of this file: it may import `lipo_cli`, and nothing relative.
"""

from __future__ import annotations

from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel

from lipo_cli.tracking.prediction import Predictor, predict_molecules


class RegressorModel(PythonModel):
    """A fitted regressor: a column `smiles` in, a column `prediction` in raw units out."""

    def __init__(self) -> None:
        self._regressor: Predictor | None = None

    def load_context(self, context: Any) -> None:
        """Loads the regressor from the model's artifact folder."""
        from lipo_cli.model.ensemble import load_predictor

        self._regressor = load_predictor(context.artifacts["regressor"])

    def predict(
        self,
        context: Any,  # noqa: ARG002
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predicts, keeping the order.

        Args:
            context: What `load_context` saw; MLflow passes it by this name.
            model_input: A column `smiles`.
            params: `on_invalid`: "error" (default) or "nan".

        Returns:
            A column `prediction`, one row per molecule.

        Raises:
            DataError: a molecule cannot be read, and `on_invalid` is "error".
            RuntimeError: the model was not loaded by MLflow.
        """
        if self._regressor is None:
            raise RuntimeError("load this model with mlflow.pyfunc.load_model")
        found = predict_molecules(
            self._regressor,
            model_input["smiles"].tolist(),
            on_invalid=(params or {}).get("on_invalid", "error"),
        )
        return pd.DataFrame({"prediction": found}, index=model_input.index)


mlflow.models.set_model(RegressorModel())
