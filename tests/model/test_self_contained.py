"""A saved adapter carries its base model: no path and no shipped checkpoint need stay as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lipo_cli.errors import ModelError
from lipo_cli.model import base as base_module
from lipo_cli.model import folder as folder_module
from lipo_cli.model.base import load_model, resolve_base
from lipo_cli.model.modeling import MolformerForSequenceClassification
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import Peft
from tests.fixtures.models import SMILES, disturb, tiny_checkpoint, tiny_regressor

ADAPTERS: tuple[Peft, ...] = ("bitfit", "lora", "ia3")


@pytest.fixture(params=ADAPTERS)
def peft(request: pytest.FixtureRequest) -> Peft:
    method: Peft = request.param
    return method


def fitted(model: Path | str, peft: Peft) -> Regressor:
    regressor = tiny_regressor(model, peft)
    disturb(regressor)
    return regressor


def halved(folder: Path) -> Path:
    """Stores the weights as the shipped ones are: in half precision."""
    file = folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file)
    return folder


def manifest_of(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every base too large to be copied."""
    monkeypatch.setattr(folder_module, "MAX_BASE_BYTES", 10)


def test_folder_of_a_relative_base_is_read_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: Peft
) -> None:
    halved(tiny_checkpoint(tmp_path / "here" / "ck"))
    monkeypatch.chdir(tmp_path / "here")
    regressor = fitted("ck", peft)
    regressor.save(Path("out"))
    wanted = regressor.predict(SMILES)
    shutil.move(tmp_path / "here" / "out", tmp_path / "moved")
    shutil.rmtree(tmp_path / "here" / "ck")
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(Regressor.load("moved").predict(SMILES), wanted)


def test_folder_names_no_path_of_this_machine(tmp_path: Path, peft: Peft) -> None:
    fitted(tiny_checkpoint(tmp_path / "ck"), peft).save(tmp_path / "out")
    for file in (tmp_path / "out").rglob("*.json"):
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name
    fitted(tmp_path / "ck", "full").save(tmp_path / "full")
    assert str(tmp_path) not in (tmp_path / "full" / "manifest.json").read_text(encoding="utf-8")


def test_base_files_are_the_bytes_on_disk(tmp_path: Path, peft: Peft) -> None:
    base = halved(tiny_checkpoint(tmp_path / "ck"))
    fitted(base, peft).save(tmp_path / "out")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "out" / "base" / name).read_bytes() == (base / name).read_bytes()


def test_model_outlives_the_shipped_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: Peft
) -> None:
    monkeypatch.setattr(base_module, "SHIPPED_ROOT", tmp_path / "shipped")
    tiny_checkpoint(tmp_path / "shipped" / "small", seed=0)
    regressor = fitted("small", peft)
    regressor.save(tmp_path / "out")
    wanted = regressor.predict(SMILES)
    tiny_checkpoint(tmp_path / "shipped" / "small", seed=1)  # a stronger one, one day
    loaded = Regressor.load(tmp_path / "out")
    assert np.array_equal(loaded.predict(SMILES), wanted)
    assert loaded.base["name"] == "small"
    with pytest.raises(ModelError, match="another 'small'"):
        Regressor.load(tmp_path / "out", base="small")


def test_loaded_model_is_saved_whole_again(tmp_path: Path, peft: Peft) -> None:
    regressor = fitted(tiny_checkpoint(tmp_path / "ck"), peft)
    regressor.save(tmp_path / "out")
    shutil.rmtree(tmp_path / "ck")
    Regressor.load(tmp_path / "out").save(tmp_path / "again")
    Regressor.load(tmp_path / "out").save(tmp_path / "out")  # onto itself
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    shutil.rmtree(tmp_path / "out")
    for name in ("again", "copy"):
        found = Regressor.load(tmp_path / name).predict(SMILES)
        assert np.array_equal(found, regressor.predict(SMILES))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_changed_base_in_the_folder_is_refused(tmp_path: Path, peft: Peft, name: str) -> None:
    fitted(tiny_checkpoint(tmp_path / "ck"), peft).save(tmp_path / "out")
    other = tiny_checkpoint(tmp_path / "other", seed=1, layer_norm_eps=1e-3)
    shutil.copyfile(other / name, tmp_path / "out" / "base" / name)
    with pytest.raises(ModelError, match="damaged or mixed"):
        Regressor.load(tmp_path / "out")
    (tmp_path / "out" / "base" / name).unlink()
    with pytest.raises(ModelError, match=f"no {name}"):
        Regressor.load(tmp_path / "out")


def test_base_taken_out_of_the_folder_is_looked_up_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: Peft
) -> None:
    monkeypatch.setattr(base_module, "SHIPPED_ROOT", tmp_path)
    tiny_checkpoint(tmp_path / "small")
    regressor = fitted("small", peft)
    regressor.save(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "base")
    found = Regressor.load(tmp_path / "out").predict(SMILES)
    assert np.array_equal(found, regressor.predict(SMILES))


@pytest.mark.usefixtures("no_copies")
def test_large_base_is_named_by_its_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peft: Peft
) -> None:
    base = tiny_checkpoint(tmp_path / "ck")
    monkeypatch.chdir(tmp_path)
    regressor = fitted("ck", peft)
    regressor.save(tmp_path / "out")
    assert not (tmp_path / "out" / "base").exists()
    manifest = manifest_of(tmp_path / "out")
    assert manifest["self_contained"] is False
    assert manifest["base"] == resolve_base(str(base)).identity()
    monkeypatch.chdir("/")
    found = Regressor.load(tmp_path / "out").predict(SMILES)
    assert np.array_equal(found, regressor.predict(SMILES))


@pytest.mark.usefixtures("no_copies")
def test_base_of_an_earlier_model_in_the_same_folder_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "MAX_BASE_BYTES", 2**20)
    fitted(tiny_checkpoint(tmp_path / "first", seed=1), "lora").save(tmp_path / "out")
    assert (tmp_path / "out" / "base").is_dir()
    monkeypatch.setattr(folder_module, "MAX_BASE_BYTES", 10)
    regressor = fitted(tiny_checkpoint(tmp_path / "second", seed=2), "lora")
    regressor.save(tmp_path / "out")
    found = Regressor.load(tmp_path / "out").predict(SMILES)
    assert np.array_equal(found, regressor.predict(SMILES))


def test_limit_keeps_the_shipped_and_leaves_out_the_published_weights() -> None:
    shipped = resolve_base("small").weights.stat().st_size
    published = 187_000_000
    assert shipped < folder_module.MAX_BASE_BYTES == 64 * 2**20 < published


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_base_that_is_no_longer_the_one_trained_on_is_not_copied(
    tmp_path: Path, peft: Peft, what: str
) -> None:
    base = tiny_checkpoint(tmp_path / "ck")
    regressor = fitted(base, peft)
    if what == "gone":
        shutil.rmtree(base)
    else:
        tiny_checkpoint(base, seed=1)
    with pytest.raises(ModelError, match="gone or has changed"):
        regressor.save(tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("method", ["lora", "ia3"])
@torch.no_grad()
def test_peft_reads_adapter_and_base_of_the_folder_alone(tmp_path: Path, method: Peft) -> None:
    regressor = fitted(tiny_checkpoint(tmp_path / "ck"), method)
    regressor.save(tmp_path / "out")
    shutil.rmtree(tmp_path / "ck")
    base = resolve_base(str(tmp_path / "out" / "base"))
    network = load_model(MolformerForSequenceClassification, base, seed=77)
    model = PeftModel.from_pretrained(network, tmp_path / "out").eval()
    ids = torch.tensor(regressor.encode([SMILES[2]]).ids)
    found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0]
    np.testing.assert_allclose(found.numpy(), regressor.predict([SMILES[2]]), atol=1e-5)
