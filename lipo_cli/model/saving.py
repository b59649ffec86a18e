"""A regressor as a folder and back, without pickle.

`manifest.json`, `config.json`, `tokenizer.json`, and safetensors that hold just what was trained.
An adapter's base model lies in `base/` beside them, or is named where it is large; either way the
manifest carries its SHA-256, and a base that does not match is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from peft import PeftModel
from safetensors.torch import save_file
from torch import nn

from lipo_cli.errors import ModelError
from lipo_cli.model.adapters import attach
from lipo_cli.model.base import read_weights
from lipo_cli.model.folder import (
    first_misfit,
    matching_base,
    portable_name,
    read_adapter,
    read_manifest,
    read_settings,
    weights_name,
    write_adapter,
    write_base,
    write_json,
    write_manifest,
)
from lipo_cli.model.network import build_network, load_network, tokenizer_of
from lipo_cli.settings import Peft

if TYPE_CHECKING:
    from lipo_cli.model.regressor import Regressor

AnyRegressor = TypeVar("AnyRegressor", bound="Regressor")


def save_regressor(regressor: Regressor, folder: Path) -> None:
    """Writes the folder; see `Regressor.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    peft, base, base_folder = regressor.peft, regressor.base, regressor.base_folder
    whole = peft == "full" or (base_folder is not None and write_base(base_folder, base, folder))
    name = portable_name(base["name"]) if whole else base["name"]
    regressor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    config = regressor.network.config.to_dict()
    config.pop("_name_or_path", None)
    write_json(folder / "config.json", config)
    if isinstance(regressor.model, PeftModel):
        write_adapter(regressor.model, folder, name)
    else:
        state = regressor.network.state_dict() if peft == "full" else regressor.trained_state()
        weights = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        save_file(weights, folder / weights_name(peft), metadata={"format": "pt"})
    manifest = regressor.manifest
    manifest["base"] = {**base, "name": name}
    manifest["settings"] = {**manifest["settings"], "model": name}
    manifest["self_contained"] = whole
    write_manifest(folder, manifest)


def load_regressor(
    kind: type[AnyRegressor], folder: Path, *, base: str | None, device: str
) -> AnyRegressor:
    """Reads the folder; see `Regressor.load`."""
    manifest = read_manifest(folder)
    settings = read_settings(manifest, folder, device=device)
    peft: Peft = manifest["peft"]
    state = read_weights(folder / weights_name(peft))
    base_folder = None
    if peft == "full":
        network = build_network(folder, settings.dropout)
    else:
        found = matching_base(base, manifest, folder)
        base_folder = found.folder
        network = load_network(found, settings.dropout)
    model = attach(network, peft, settings)
    tokenizer = tokenizer_of(network, folder)
    about = {k: v for k, v in manifest.items() if k not in ("settings", "base", "peft")}
    regressor = kind(
        model, tokenizer, peft, manifest["base"], settings, about=about, base_folder=base_folder
    )
    if isinstance(model, PeftModel):
        read_adapter(model, state, folder)
    elif peft == "full":
        _fill(network, state, folder)
    else:
        regressor.restore_state(state)
    regressor.model.eval()
    return regressor


def _fill(network: nn.Module, state: dict[str, torch.Tensor], folder: Path) -> None:
    if odd := first_misfit(network.state_dict(), state):
        raise ModelError(f"the weights do not fit config.json: {odd}", where=folder)
    network.load_state_dict(state)
