"""Adapting a pretrained model to a dataset's molecules before it is compared: where it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lipo_cli.comparison.prepare import Prepared
from lipo_cli.model.base import resolve_base
from lipo_cli.settings import CompareSettings, PretrainSettings
from lipo_cli.settings_base import build


def adaptation_settings(recipe: Mapping[str, Any], settings: CompareSettings) -> PretrainSettings:
    """Returns how the model of a comparison is adapted to the molecules of train and validation.

    A comparison of fewer epochs than the adaptation has shortens it, too: `--epochs 1` is a trial
    of everything.

    Args:
        recipe: Settings of the adaptation.
        settings: The comparison: its model, data, epochs, seed, precision and device.
    """
    training = settings.training
    epochs = min(int(recipe.get("epochs", training.epochs)), training.epochs)
    shared = {
        "adapt": True,
        "data": settings.data.model_dump(),
        "model": training.model,
        "seed": settings.first_seed,
        "precision": training.precision,
        "device": training.device,
    }
    return build(PretrainSettings, recipe, shared, {"epochs": epochs})


def adapted_folder(root: Path, adaptation: PretrainSettings, prepared: Prepared) -> Path:
    """Returns where the adapted model is kept, so that the same command finds it again.

    Args:
        root: The store's folder.
        adaptation: Its settings.
        prepared: The molecules.

    Raises:
        ModelError: there is no such model to adapt.
    """
    assert adaptation.model is not None
    base = resolve_base(adaptation.model)
    deciding = adaptation.model_copy(update={"model": base.fingerprint, "device": "auto"})
    key = deciding.fingerprint(scope=prepared.scope())
    return root / "adapted" / f"{Path(base.name).name}-adapted-{key[:8]}"
