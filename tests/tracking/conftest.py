"""A saved regressor, made once: a fresh head on the shipped checkpoint, which needs no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def saved_regressor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from lipo_cli.model.regressor import Regressor
    from lipo_cli.settings import TrainingSettings

    settings = TrainingSettings(precision="float32", device="cpu")
    regressor = Regressor.from_base("lora", settings, seed=0)
    regressor.set_label_scale(np.array([0.5, 2.0, 3.5]))
    folder = tmp_path_factory.mktemp("saved") / "regressor"
    regressor.save(folder)
    return folder


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a saved regressor, for what never loads it."""
    folder = tmp_path_factory.mktemp("stand-in") / "regressor"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder
