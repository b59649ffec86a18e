"""A saved regressor predicts the same to the last bit, or is refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from lipo_cli.errors import ModelError
from lipo_cli.model.base import load_model, resolve_base
from lipo_cli.model.batches import collate
from lipo_cli.model.modeling import MolformerForSequenceClassification
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft
from tests.fixtures.models import LABELS, SMILES, disturb, tiny_checkpoint, tiny_regressor

WEIGHTS = {
    "full": "model.safetensors",
    "bitfit": "model.safetensors",
    "lora": "adapter_model.safetensors",
    "ia3": "adapter_model.safetensors",
}


@pytest.fixture(params=PEFT_METHODS)
def peft(request: pytest.FixtureRequest) -> Peft:
    method: Peft = request.param
    return method


@pytest.fixture
def fitted(tiny: Path, peft: Peft) -> Regressor:
    regressor = tiny_regressor(tiny, peft)
    disturb(regressor)
    return regressor


@pytest.fixture
def saved(fitted: Regressor, tmp_path: Path) -> Path:
    fitted.save(tmp_path / "saved")
    return tmp_path / "saved"


def refused(folder: Path, **kwargs: Any) -> str:
    with pytest.raises(ModelError) as caught:
        Regressor.load(folder, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def change_manifest(folder: Path, **changes: object) -> None:
    file = folder / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content.update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_predictions_are_equal_to_the_last_bit(fitted: Regressor, saved: Path) -> None:
    loaded = Regressor.load(saved)
    assert np.array_equal(fitted.predict(SMILES), loaded.predict(SMILES))
    assert np.array_equal(fitted.embed(SMILES), loaded.embed(SMILES))
    assert loaded.peft == fitted.peft
    changed = {"device": "auto", "model": Path(fitted.settings.model).name}
    assert loaded.settings == fitted.settings.model_copy(update=changed)
    assert not loaded.model.training


def test_saving_what_was_loaded_gives_the_same_files(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    Regressor.load(saved, device="cpu").save(again)
    assert {f.name for f in again.iterdir()} == {f.name for f in saved.iterdir()}
    for file in filter(Path.is_file, saved.rglob("*")):
        name = file.relative_to(saved)
        assert file.read_bytes() == (again / name).read_bytes(), name


def test_label_scale_comes_back_in_raw_units(saved: Path) -> None:
    head = Regressor.load(saved).head()
    assert float(head.label_mean) == pytest.approx(LABELS.mean(), abs=1e-6)
    assert float(head.label_scale) == pytest.approx(LABELS.std(), abs=1e-6)


def test_folder_holds_no_pickle_and_just_what_was_trained(
    fitted: Regressor, saved: Path, peft: Peft
) -> None:
    wanted = {"manifest.json", "config.json", "tokenizer.json", WEIGHTS[peft]}
    wanted |= {"adapter_config.json"} if peft in ("lora", "ia3") else set()
    wanted |= {"base"} if peft != "full" else set()
    assert {file.name for file in saved.iterdir()} == wanted
    if peft != "full":
        inside = {file.name for file in (saved / "base").iterdir()}
        assert inside == {"config.json", "model.safetensors"}
    for file in saved.glob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    stored = sum(value.numel() for value in load_file(saved / WEIGHTS[peft]).values())
    features = sum(
        b.numel() for n, b in fitted.model.named_buffers() if n.endswith("feature_map.weight")
    )
    scale = 2
    extra = features if peft == "full" else 0
    assert stored == fitted.parameters().trainable + scale + extra


def test_manifest_says_what_made_it(saved: Path, peft: Peft, tiny: Path) -> None:
    manifest = Regressor.load(saved).manifest
    assert manifest["peft"] == peft
    assert manifest["base"] == {**resolve_base(str(tiny)).identity(), "name": tiny.name}
    assert manifest["self_contained"] is True
    assert manifest["settings"]["precision"] == "float32"
    assert manifest["lipo"]


def test_edited_weights_are_refused(saved: Path, peft: Peft) -> None:
    file = saved / WEIGHTS[peft]
    state = load_file(file)
    name = next(n for n in sorted(state) if n.endswith("out_proj.bias"))
    state[name] = state[name] + 1e-3
    save_file(state, file)
    assert "not the file" in refused(saved)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_edited_description_is_refused(saved: Path, name: str) -> None:
    text = (saved / name).read_text(encoding="utf-8")
    (saved / name).write_text(text + " ", encoding="utf-8")
    assert f"{name} is not the file" in refused(saved)


def test_damaged_weights_are_refused(saved: Path, peft: Peft) -> None:
    file = saved / WEIGHTS[peft]
    file.write_bytes(file.read_bytes()[:-3])
    assert "not the file" in refused(saved)


@pytest.mark.parametrize("what", ["manifest.json", "config.json", "tokenizer.json", "weights"])
def test_missing_file_is_named(saved: Path, peft: Peft, what: str) -> None:
    name = WEIGHTS[peft] if what == "weights" else what
    (saved / name).unlink()
    assert f"no {name}" in refused(saved)


def test_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    assert "no manifest.json" in refused(tmp_path / "nowhere")
    assert "no manifest.json" in refused(tmp_path)


def test_another_base_is_refused(saved: Path, peft: Peft, tmp_path: Path) -> None:
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    if peft == "full":  # its weights are whole: it needs no base
        Regressor.load(saved, base=str(other))
        return
    text = refused(saved, base=str(other))
    assert "another" in text
    assert resolve_base(str(other)).sha256[:12] in text


def test_base_that_moved_can_be_given(
    fitted: Regressor, saved: Path, tiny: Path, tmp_path: Path, peft: Peft
) -> None:
    elsewhere = Path(shutil.copytree(tiny, tmp_path / "elsewhere"))
    change_manifest(saved, base={**fitted.base, "name": str(tmp_path / "gone")})
    if peft != "full":
        shutil.rmtree(saved / "base")
        assert "gone" in refused(saved)
    loaded = Regressor.load(saved, base=str(elsewhere))
    assert np.array_equal(fitted.predict(SMILES), loaded.predict(SMILES))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "\x80\x81", '"text"'])
def test_garbage_manifest_is_one_line(tiny: Path, tmp_path: Path, text: str) -> None:
    tiny_regressor(tiny).save(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    assert "manifest" in refused(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"format": "1"}, "format 1"),
        ({"peft": "prefix"}, "prefix"),
        ({"peft": ["lora"]}, "lora"),
        ({"base": "small"}, "base"),
        ({"base": {"name": "small"}}, "base"),
        ({"settings": {"epochs": "many"}}, "settings"),
        ({"settings": {"no_such_setting": 1}}, "settings"),
        ({"settings": []}, "settings"),
        ({"weights_sha256": None}, "not the file"),
    ],
    ids=str,
)
def test_manifest_that_makes_no_sense_is_one_line(
    tiny: Path, tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    tiny_regressor(tiny).save(tmp_path)
    change_manifest(tmp_path, **changes)
    assert says in refused(tmp_path)


@pytest.mark.parametrize("key", ["format", "peft", "base", "settings", "weights_sha256"])
def test_manifest_that_lacks_a_key_names_it(tiny: Path, tmp_path: Path, key: str) -> None:
    tiny_regressor(tiny).save(tmp_path)
    file = tmp_path / "manifest.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content[key]
    file.write_text(json.dumps(content), encoding="utf-8")
    assert f"lacks {key}" in refused(tmp_path)


def test_adapter_of_another_rank_is_refused(tiny: Path, tmp_path: Path) -> None:
    regressor = tiny_regressor(tiny, "lora")
    regressor.save(tmp_path)
    change_manifest(tmp_path, settings={**regressor.manifest["settings"], "lora_rank": 2})
    assert "lora_A" in refused(tmp_path)


@pytest.mark.parametrize("method", ["lora", "ia3"])
@torch.no_grad()
def test_peft_itself_reads_the_folder(tiny: Path, tmp_path: Path, method: Peft) -> None:
    regressor = tiny_regressor(tiny, method)
    disturb(regressor)
    regressor.save(tmp_path)
    base = load_model(MolformerForSequenceClassification, resolve_base(str(tiny)), seed=77)
    model = PeftModel.from_pretrained(base, tmp_path).eval()
    (config,) = model.peft_config.values()
    assert config.base_model_name_or_path == tiny.name
    ids = regressor.encode(SMILES).ids
    batch = collate(ids, regressor.pad_id)
    found = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
    np.testing.assert_allclose(found.numpy(), regressor.predict(SMILES), atol=1e-5)


def test_copied_state_comes_back_and_is_no_alias(fitted: Regressor) -> None:
    before = fitted.predict(SMILES)
    kept = fitted.copy_state()
    disturb(fitted, seed=5)
    fitted.set_label_scale(LABELS * 3 + 1)
    assert not np.array_equal(fitted.predict(SMILES), before)
    fitted.restore_state(kept)
    assert np.array_equal(fitted.predict(SMILES), before)


def test_state_of_another_shape_is_refused_and_changes_nothing(fitted: Regressor) -> None:
    before = fitted.predict(SMILES)
    state = fitted.copy_state()
    name = next(n for n in state if n.endswith("out_proj.bias"))
    with pytest.raises(ModelError, match="do not fit"):
        fitted.restore_state({**state, name: torch.zeros(2)})
    state.pop(name)
    with pytest.raises(ModelError, match=r"out_proj\.bias"):
        fitted.restore_state(state)
    assert np.array_equal(fitted.predict(SMILES), before)


def test_constant_labels_keep_a_scale_of_one(tiny: Path) -> None:
    regressor = tiny_regressor(tiny)
    regressor.set_label_scale(np.array([2.0, 2.0, 2.0]))
    assert float(regressor.head().label_mean) == 2.0
    assert float(regressor.head().label_scale) == 1.0


def test_longest_sequence_is_the_smaller_of_settings_and_model(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path, max_position_embeddings=20)
    assert tiny_regressor(folder).max_length == 20
    assert tiny_regressor(folder, max_length=9).max_length == 9
    encoded = tiny_regressor(folder, max_length=9).encode(SMILES)
    assert max(map(len, encoded.ids)) == 9
    whole = tiny_regressor(tmp_path).encode(SMILES).ids
    assert encoded.n_truncated == sum(len(row) > 9 for row in whole)
