"""Checkpoints: what is found, what is refused, and that nothing starts at random in silence."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lipo_cli.errors import ModelError
from lipo_cli.model import (
    MolformerForMaskedLM,
    MolformerForSequenceClassification,
    MolformerModel,
)
from lipo_cli.model.base import (
    SHIPPED_ROOT,
    load_model,
    read_config,
    read_weights,
    resolve_base,
    sha256_of,
    shipped_names,
)
from lipo_cli.model.regressor import Regressor
from tests.fixtures.models import tiny_checkpoint, tiny_settings

LAYER = "molformer.encoder.layer.1"


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def change_config(folder: Path, **changes: object) -> None:
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content.update(changes)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def load(folder: Path, cls: type = MolformerForSequenceClassification) -> torch.nn.Module:
    return load_model(cls, resolve_base(str(folder)))


def refused(folder: Path, cls: type = MolformerForSequenceClassification) -> ModelError:
    with pytest.raises(ModelError) as caught:
        load(folder, cls)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("cls", [MolformerModel, MolformerForMaskedLM])
def test_every_weight_of_the_file_arrives(tiny: Path, cls: type) -> None:
    state = load_file(tiny / "model.safetensors")
    own = load(tiny, cls).state_dict()
    prefix = "molformer." if cls is MolformerModel else ""
    assert own
    for name, value in own.items():
        assert torch.equal(value, state[prefix + name]), name
    if cls is MolformerForMaskedLM:
        assert own.keys() == state.keys()


def test_shipped_small_loads_in_float32_with_every_encoder_weight() -> None:
    assert "small" in shipped_names()
    state = load_file(SHIPPED_ROOT / "small" / "model.safetensors")
    # The random features are few, and a rounded W would be another attention kernel.
    kinds = {name.endswith("feature_map.weight"): value.dtype for name, value in state.items()}
    assert kinds == {True: torch.float32, False: torch.float16}
    model = load_model(MolformerForMaskedLM, resolve_base("small"))
    own = model.state_dict()
    assert own.keys() == state.keys()
    for name, value in own.items():
        assert value.dtype == torch.float32, name
        assert torch.equal(value, state[name].float()), name
    assert sum(p.numel() for p in model.parameters()) > 3_000_000


@pytest.mark.parametrize(
    "name",
    [
        f"{LAYER}.attention.self.query.bias",
        f"{LAYER}.attention.self.feature_map.weight",
        f"{LAYER}.output.LayerNorm.weight",
        "molformer.embeddings.word_embeddings.weight",
        "molformer.LayerNorm.bias",
    ],
)
@pytest.mark.parametrize("cls", [MolformerModel, MolformerForSequenceClassification])
def test_missing_encoder_weight_is_named(copy: Path, name: str, cls: type) -> None:
    change_weights(copy, lambda state: state.pop(name))
    error = refused(copy, cls)
    assert name.removeprefix("molformer.") in error.what
    assert "1 encoder weight" in error.what


def test_weights_in_other_names_are_no_silent_start(copy: Path) -> None:
    def rename(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[f"bert.{name}"] = state.pop(name)

    change_weights(copy, rename)
    assert "missing" in refused(copy).what


def test_wrong_shape_is_named_with_both_shapes(copy: Path) -> None:
    name = f"{LAYER}.intermediate.dense.weight"

    def cut(state: dict[str, torch.Tensor]) -> None:
        state[name] = state[name][:-1].contiguous()

    change_weights(copy, cut)
    error = refused(copy)
    assert name in error.what
    assert "(23, 16)" in error.what
    assert "(24, 16)" in error.what


def test_another_architecture_is_refused(copy: Path) -> None:
    change_config(copy, model_type="bert")
    error = refused(copy)
    assert "'bert'" in error.what
    assert "molformer" in error.what


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\xff\xfe", "null", '"molformer"'])
def test_broken_config_is_one_line(copy: Path, text: str) -> None:
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in str(refused(copy))


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 3},
        {"num_attention_heads": 0},
        {"hidden_act": "no such function"},
        {"hidden_size": -16},
        {"feature_map_kernel": "exp"},
    ],
    ids=str,
)
def test_config_that_makes_no_sense_is_one_line(copy: Path, changes: dict[str, object]) -> None:
    change_config(copy, **changes)
    assert "config.json" in str(refused(copy))


@pytest.mark.parametrize("kept", [0, 7, 400, -1])
def test_damaged_weights_are_one_line(copy: Path, kept: int) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    error = refused(copy)
    assert error.where is not None
    assert error.where.endswith("model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_folder_that_is_not_whole_says_what_lacks(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelError, match=f"no {name}"):
        Regressor.from_base("full", tiny_settings(copy), 0)


def test_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    shutil.copy(SHIPPED_ROOT / "small" / "tokenizer.json", copy / "tokenizer.json")
    with pytest.raises(ModelError, match="tokens"):
        Regressor.from_base("full", tiny_settings(copy), 0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"model": {"vocab": {}}}'])
def test_broken_tokenizer_is_one_line(copy: Path, text: str) -> None:
    (copy / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json") as caught:
        Regressor.from_base("full", tiny_settings(copy), 0)
    assert "\n" not in str(caught.value)


def test_tokenizer_without_special_tokens_is_refused(copy: Path) -> None:
    content = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    del content["model"]["vocab"]["<mask>"]
    content["added_tokens"] = []
    (copy / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelError, match="<mask>"):
        Regressor.from_base("full", tiny_settings(copy), 0)


def test_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ModelError) as caught:
        resolve_base("smal")
    assert "small" in str(caught.value)


def test_hub_name_without_network_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError) as caught:
        resolve_base("ibm-research/MoLFormer-XL-both-10pct")
    text = str(caught.value)
    assert "ibm-research/MoLFormer-XL-both-10pct" in text
    assert "folder" in text
    assert "\n" not in text


def test_head_is_drawn_from_the_seed_and_the_encoder_is_not(tiny: Path) -> None:
    base = resolve_base(str(tiny))
    torch.manual_seed(99)
    untouched = torch.random.get_rng_state()
    first, again, other = (
        load_model(MolformerForSequenceClassification, base, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), untouched), "the caller's stream must not move"
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        drawn = name.startswith("classifier.") and name.endswith(".weight")
        assert torch.equal(value, other.state_dict()[name]) is not drawn, name


def test_head_of_the_checkpoint_is_kept(tiny: Path, tmp_path: Path) -> None:
    model = load_model(MolformerForSequenceClassification, resolve_base(str(tiny)), seed=4)
    model.classifier.label_mean.fill_(1.75)
    model.save_pretrained(tmp_path)
    again = load_model(MolformerForSequenceClassification, resolve_base(str(tmp_path)), seed=8)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_changes_of_the_config_reach_the_model(tiny: Path) -> None:
    model = load_model(
        MolformerForSequenceClassification, resolve_base(str(tiny)), hidden_dropout_prob=0.37
    )
    rates = {
        m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and "emb" not in n
    }
    assert rates == {0.37}


def test_published_config_needs_no_label_count(copy: Path) -> None:
    content = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    for key in ("num_labels", "id2label", "label2id"):
        content.pop(key, None)
    content["auto_map"] = {"AutoModel": "modeling_molformer.MolformerModel"}
    (copy / "config.json").write_text(json.dumps(content), encoding="utf-8")
    assert read_config(copy).num_labels == 1
    assert load(copy).classifier.out_proj.out_features == 1


def test_integers_of_a_file_stay_integers(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    save_file({"n": torch.arange(3), "x": torch.ones(2, dtype=torch.float16)}, file)
    state = read_weights(file)
    assert state["n"].dtype == torch.int64
    assert state["x"].dtype == torch.float32


def test_hash_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(file).startswith("ba7816bf8f01cfea414140de5dae2223")
    file.write_bytes(b"abcd")
    assert sha256_of(file).startswith("88d4266fd4e6338d13b845fcf289579d")


def test_base_is_named_by_its_weights(tiny: Path, copy: Path) -> None:
    assert resolve_base(str(tiny)).identity()["sha256"] == resolve_base(str(copy)).sha256
    change_weights(copy, lambda state: state["molformer.LayerNorm.bias"].add_(1e-3))
    assert resolve_base(str(tiny)).sha256 != resolve_base(str(copy)).sha256


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_fingerprint_covers_every_file_that_decides_numbers(
    tiny: Path, copy: Path, name: str
) -> None:
    before = resolve_base(str(copy))
    assert before.fingerprint == resolve_base(str(tiny)).fingerprint
    with (copy / name).open("ab") as stream:
        stream.write(b" ")
    after = resolve_base(str(copy))
    assert after.fingerprint != before.fingerprint
    assert (after.sha256 != before.sha256) is (name == "model.safetensors")
    assert (after.config_sha256 != before.config_sha256) is (name == "config.json")


def test_fingerprint_by_hand(tiny: Path, copy: Path) -> None:
    names = ("config.json", "tokenizer.json", "model.safetensors")
    lines = [f"{n} {hashlib.sha256((tiny / n).read_bytes()).hexdigest()}\n" for n in names]
    by_hand = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert resolve_base(str(tiny)).fingerprint == by_hand
    (copy / "tokenizer.json").unlink()  # a masked model can be read without one
    assert resolve_base(str(copy)).fingerprint != by_hand


def test_relative_folder_is_known_by_its_whole_path(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.parent)
    base = resolve_base(copy.name)
    assert base.name == base.identity()["name"] == str(copy.resolve())
    monkeypatch.chdir("/")
    assert load_model(MolformerForMaskedLM, base).dtype == torch.float32
    assert resolve_base("small").name == "small"


def test_a_shipped_name_that_is_a_checkpoint_here_too_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_checkpoint(tmp_path / "small")
    with pytest.raises(ModelError, match="shipped model and a folder here"):
        resolve_base("small")
    assert resolve_base("./small").folder == tmp_path / "small"
