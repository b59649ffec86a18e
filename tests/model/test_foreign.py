"""Other encoders of transformers: they are fine-tuned, saved and refused as MoLFormer is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    FNetConfig,
    GPT2Config,
    ModernBertConfig,
    RobertaForSequenceClassification,
)

from lipo_cli.errors import ModelError
from lipo_cli.model.adapters import parameter_groups
from lipo_cli.model.base import resolve_base
from lipo_cli.model.batches import collate
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import PEFT_METHODS, Peft, PretrainSettings
from lipo_cli.training.examples import Examples
from lipo_cli.training.finetune import fit
from lipo_cli.training.pretrain import pretrain
from tests.fixtures.encoders import (
    byte_level_bpe,
    change_json,
    renamed_weights,
    tiny_distilbert,
    tiny_roberta,
    write_masked_lm,
)
from tests.fixtures.models import (
    LABELS,
    SMILES,
    assembled_molecules,
    disturb,
    tiny_regressor,
    tiny_settings,
)

KINDS: dict[str, Callable[..., Path]] = {"roberta": tiny_roberta, "distilbert": tiny_distilbert}
LAYERS = {"roberta": "backbone.encoder.layer", "distilbert": "backbone.transformer.layer"}
MAPS = {
    "roberta": {
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        *("attention.output.dense", "intermediate.dense", "output.dense"),
    },
    "distilbert": {
        *(f"attention.{name}" for name in ("q_lin", "k_lin", "v_lin", "out_lin")),
        *("ffn.lin1", "ffn.lin2"),
    },
}
SCALED = {
    "roberta": {"attention.self.key", "attention.self.value", "output.dense"},
    "distilbert": {"attention.k_lin", "attention.v_lin", "ffn.lin2"},
}
"""What IA3 rescales: keys, values, and the input of the second feed-forward map."""
HEAD = {f"classifier.{m}.{p}" for m in ("dense", "dense2", "out_proj") for p in ("weight", "bias")}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny checkpoints with random weights; not to be written to."""
    return {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=PEFT_METHODS)
def peft(request: pytest.FixtureRequest) -> Peft:
    method: Peft = request.param
    return method


@pytest.fixture
def folder(folders: dict[str, Path], kind: str) -> Path:
    return folders[kind]


@pytest.fixture
def roberta(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A RoBERTa to be changed."""
    return Path(shutil.copytree(folders["roberta"], tmp_path / "roberta"))


def refused(folder: Path, peft: Peft = "full") -> str:
    with pytest.raises(ModelError) as caught:
        tiny_regressor(folder, peft)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def trainable(regressor: Regressor) -> set[str]:
    """Returns the names of what is trained, without PEFT's wrapping."""
    return {
        name.removeprefix("base_model.model.")
        .replace("modules_to_save.default.", "")
        .replace(".default", "")
        for name, parameter in regressor.model.named_parameters()
        if parameter.requires_grad
    }


def layers(kind: str, parts: set[str]) -> set[str]:
    return {f"{LAYERS[kind]}.{i}.{part}" for i in range(2) for part in parts}


@torch.no_grad()
def test_embeddings_are_those_of_transformers(folder: Path) -> None:
    encoder = AutoModel.from_pretrained(folder).eval()
    regressor = tiny_regressor(folder)
    found = regressor.embed(SMILES)
    for ids, row in zip(regressor.encode(SMILES).ids, found, strict=True):
        hidden = encoder(torch.tensor([ids])).last_hidden_state[0]
        np.testing.assert_allclose(row, hidden.mean(dim=0).numpy(), atol=1e-5)


def test_every_method_learns(folder: Path, peft: Peft) -> None:
    smiles, labels = assembled_molecules()
    chosen = np.random.default_rng(0).permutation(len(smiles))
    every = Examples(smiles, labels)
    changes = {"epochs": 12, "batch_size": 16, "randomise": 0.0, "learning_rate": 2e-2}
    regressor = tiny_regressor(folder, peft, **changes)
    result = fit(regressor, every.take(chosen[:96]), every.take(chosen[96:128]), seed=0)
    losses = [row["train_loss"] for row in result.history]
    assert losses[-1] < 0.8 * losses[0]
    assert result.best_val_rmse < labels.std()
    assert (result.n_truncated, result.n_unknown) == (0, 0)


def test_each_method_trains_what_it_says(kind: str, folder: Path) -> None:
    full = tiny_regressor(folder)
    every = {name for name, _ in full.model.named_parameters()}
    assert trainable(full) == every
    assert not any("pooler" in name or "lm_head" in name for name in every)
    biases = {name for name in every if name.endswith(".bias")}
    assert len(biases) > 16
    assert trainable(tiny_regressor(folder, "bitfit")) == biases | HEAD
    lora = layers(kind, {f"{m}.lora_{x}.weight" for m in MAPS[kind] for x in "AB"})
    assert trainable(tiny_regressor(folder, "lora")) == lora | HEAD
    asked = {m for m in MAPS[kind] if m.rpartition(".")[2][0] in "qkv"}
    assert len(asked) == 3
    attention = layers(kind, {f"{m}.lora_{x}.weight" for m in asked for x in "AB"})
    assert trainable(tiny_regressor(folder, "lora", lora_targets="attention")) == attention | HEAD
    scaled = layers(kind, {f"{m}.ia3_l" for m in SCALED[kind]})
    ia3 = tiny_regressor(folder, "ia3")
    assert trainable(ia3) == scaled | HEAD
    sizes = {p.numel() for n, p in ia3.model.named_parameters() if "ia3_l" in n}
    assert sizes == {16, 24}


def test_layers_have_their_own_rates(kind: str, folder: Path, peft: Peft) -> None:
    regressor = tiny_regressor(folder, peft)
    rate = {
        id(parameter): group["lr"]
        for group in parameter_groups(regressor.model, 0.1, 0.5, 0.01)
        for parameter in group["params"]
    }
    depths = {"classifier": 0, f"{LAYERS[kind]}.1.": 1, f"{LAYERS[kind]}.0.": 2, "embeddings": 3}
    named = {n: p for n, p in regressor.model.named_parameters() if p.requires_grad}
    assert len(rate) == len(named)
    for name, parameter in named.items():
        (depth,) = [d for part, d in depths.items() if part in name]
        assert rate[id(parameter)] == pytest.approx(0.1 * 0.5**depth), name


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_adapters_start_where_the_encoder_is(folder: Path, method: Peft) -> None:
    plain, adapted = tiny_regressor(folder, "full", seed=3), tiny_regressor(folder, method, seed=3)
    assert np.array_equal(plain.predict(SMILES), adapted.predict(SMILES))
    assert np.array_equal(plain.embed(SMILES), adapted.embed(SMILES))
    other = tiny_regressor(folder, "full", seed=4)
    assert np.array_equal(plain.embed(SMILES), other.embed(SMILES))
    assert not np.array_equal(plain.predict(SMILES), other.predict(SMILES))


def test_saved_regressor_predicts_the_same(folder: Path, peft: Peft, tmp_path: Path) -> None:
    regressor = tiny_regressor(folder, peft)
    disturb(regressor)
    regressor.save(tmp_path / "out")
    loaded = Regressor.load(tmp_path / "out", device="cpu")
    assert np.array_equal(loaded.predict(SMILES), regressor.predict(SMILES))
    assert np.array_equal(loaded.embed(SMILES), regressor.embed(SMILES))
    loaded.save(tmp_path / "again")
    for file in filter(Path.is_file, (tmp_path / "out").rglob("*")):
        name = file.relative_to(tmp_path / "out")
        assert name.suffix in (".json", ".safetensors")
        assert file.read_bytes() == (tmp_path / "again" / name).read_bytes(), name
    content = (tmp_path / "out" / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "out" / "tokenizer.json").write_text(content + " ", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json is not the file"):
        Regressor.load(tmp_path / "out")


def test_another_base_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    tiny_regressor(folders["roberta"], "lora").save(tmp_path / "out")
    other = tiny_roberta(tmp_path / "other", seed=1)
    with pytest.raises(ModelError, match="another"):
        Regressor.load(tmp_path / "out", base=str(other))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_molecule_alone_is_worth_what_it_is_in_a_batch(
    folder: Path, peft: Peft, precision: str
) -> None:
    regressor = tiny_regressor(folder, peft, precision=precision)
    disturb(regressor)
    together = regressor.predict(SMILES)
    alone = np.concatenate([regressor.predict([text]) for text in SMILES])
    np.testing.assert_allclose(alone, together, atol=1e-5 if precision == "float32" else 0.1)
    exact = Regressor(
        regressor.model, regressor.tokenizer, peft, regressor.base, tiny_settings(folder)
    )
    np.testing.assert_allclose(together, exact.predict(SMILES), atol=0.2)


def test_dropout_of_the_settings_is_that_of_layers_and_head(folder: Path) -> None:
    regressor = tiny_regressor(folder, dropout=0.37)
    kept = {
        m.p
        for n, m in regressor.model.named_modules()
        if isinstance(m, torch.nn.Dropout) and "attention.self" not in n and "attention.dr" not in n
    }
    assert kept == {0.37}
    regressor.model.train()
    assert np.array_equal(regressor.predict(SMILES), regressor.predict(SMILES))


@pytest.mark.parametrize(("name", "longest"), [("roberta", 64), ("distilbert", 64)])
def test_longest_sequence_is_what_positions_allow(
    folders: dict[str, Path], name: str, longest: int
) -> None:
    regressor = tiny_regressor(folders[name])
    assert regressor.max_length == longest  # RoBERTa: 66 positions, the first two are padding's
    assert tiny_regressor(folders[name], max_length=9).max_length == 9
    text = "".join(SMILES[i] for i in (1, 2, 4, 5, 9, 10))
    encoded = regressor.encode([text, "C"])
    assert encoded.n_truncated == 1
    assert len(encoded.ids[0]) == longest
    assert encoded.ids[0][-1] == encoded.ids[1][-1]
    assert np.isfinite(regressor.predict([text, "C"])).all()


def test_unknown_tokens_and_dropped_characters_are_counted(folder: Path) -> None:
    regressor = tiny_regressor(folder)
    assert regressor.encode(SMILES).n_unknown == 0
    # X and e: [UNK] in the word pieces, dropped without a trace by byte-level BPE
    assert regressor.encode(["CCO", "C[Xe]C", "XCCO", "CCOe"]).n_unknown == 3


def test_fixed_padding_and_truncation_of_a_file_are_switched_off(roberta: Path) -> None:
    wanted = tiny_regressor(roberta).encode(SMILES)
    backend = byte_level_bpe().backend_tokenizer
    backend.enable_padding(length=128, pad_id=1, pad_token="<pad>")
    backend.enable_truncation(max_length=8)
    backend.save(str(roberta / "tokenizer.json"))
    assert tiny_regressor(roberta).encode(SMILES) == wanted


def test_missing_encoder_weight_is_named(roberta: Path) -> None:
    renamed_weights(roberta, {"encoder.layer.1.output.dense.bias": None})
    assert "1 encoder weights are missing, the first is encoder.layer.1" in refused(roberta)
    renamed_weights(roberta, {"roberta.": "other."})
    assert "weights are missing, the first is embeddings" in refused(roberta)


def test_wrong_shape_is_named_with_both_shapes(roberta: Path) -> None:
    change_json(roberta / "config.json", intermediate_size=25)
    text = refused(roberta)
    assert "intermediate.dense" in text
    assert "(24" in text
    assert "(25" in text


def test_heads_and_older_names_of_a_checkpoint_do_no_harm(
    roberta: Path, folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = tiny_regressor(folders["roberta"])
    renamed_weights(roberta, {"lm_head": None, "LayerNorm.weight": "LayerNorm.gamma"})
    found = tiny_regressor(roberta)
    assert np.array_equal(found.predict(SMILES), wanted.predict(SMILES))
    torch.manual_seed(0)
    classifier = RobertaForSequenceClassification.from_pretrained(folders["roberta"])
    classifier.save_pretrained(roberta)
    capfd.readouterr()
    found = tiny_regressor(roberta)
    assert np.array_equal(found.predict(SMILES), wanted.predict(SMILES))
    assert capfd.readouterr() == ("", "")


def test_saved_regressor_is_a_checkpoint_too(folder: Path, tmp_path: Path) -> None:
    regressor = tiny_regressor(folder)
    disturb(regressor)
    regressor.save(tmp_path)
    again = tiny_regressor(tmp_path, "lora", seed=9)
    assert np.array_equal(again.predict(SMILES), regressor.predict(SMILES))


def test_tokenizer_is_taken_as_the_file_says(roberta: Path) -> None:
    wanted = byte_level_bpe()(list(SMILES)).input_ids
    assert tiny_regressor(roberta).encode(SMILES).ids == wanted
    assert max(map(len, wanted)) > min(map(len, wanted)) > 2
    (roberta / "tokenizer.json").unlink()
    (roberta / "tokenizer_config.json").unlink()
    assert "no tokenizer.json" in refused(roberta)
    byte_level_bpe().backend_tokenizer.model.save(str(roberta))  # vocab.json and merges.txt
    built = tiny_regressor(roberta)
    assert built.encode(SMILES).ids == wanted
    base = resolve_base(str(roberta)).fingerprint
    with (roberta / "merges.txt").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert resolve_base(str(roberta)).fingerprint != base


def test_tokenizer_of_another_model_is_refused(roberta: Path) -> None:
    change_json(roberta / "config.json", vocab_size=30)
    renamed_weights(roberta, {"lm_head": None})
    state = load_file(roberta / "model.safetensors")
    name = "roberta.embeddings.word_embeddings.weight"
    save_file({**state, name: state[name][:30].contiguous()}, roberta / "model.safetensors")
    assert "embeddings for 30" in refused(roberta)
    (roberta / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert "tokenizer" in refused(roberta)


def tiny(cls: type, **fields: Any) -> Any:
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    return cls(**{**sizes, "intermediate_size": 24, "pad_token_id": 1, **fields})


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (GPT2Config(n_embd=16, n_layer=2, n_head=2), "'gpt2', no encoder"),
        (BartConfig(d_model=16, encoder_layers=1, decoder_layers=1), "'bart', no encoder"),
        (tiny(BertConfig, is_decoder=True), "'bert', no encoder"),
    ],
    ids=["gpt2", "bart", "bert as decoder"],
)
def test_what_is_no_encoder_is_one_line(roberta: Path, config: Any, says: str) -> None:
    config.save_pretrained(roberta)
    assert says in refused(roberta)


def test_encoder_that_reads_padding_is_refused(roberta: Path) -> None:
    write_masked_lm(tiny(FNetConfig, max_position_embeddings=64), roberta)
    assert "fnet reads padding" in refused(roberta)


def test_method_that_finds_nothing_to_train_is_refused(roberta: Path) -> None:
    config = tiny(ModernBertConfig, bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2)
    write_masked_lm(config, roberta)
    assert "bitfit finds nothing to train in modernbert" in refused(roberta, "bitfit")
    for method in ("full", "lora", "ia3"):
        assert np.isfinite(tiny_regressor(roberta, method).predict(SMILES)).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no such"},
        {"model_type": None},
        {"hidden_size": "wide"},
        {"num_attention_heads": 3},
        {"quantization_config": {"load_in_8bit": True}},
    ],
    ids=str,
)
def test_config_that_makes_no_sense_is_one_line(roberta: Path, changes: dict[str, Any]) -> None:
    change_json(roberta / "config.json", **changes)
    assert "config.json" in refused(roberta)


def test_code_beside_a_checkpoint_is_never_run(
    roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_MODULES_CACHE", str(roberta / "modules"))
    mark = roberta / "was-run"
    code = f"open({str(mark)!r}, 'w').close()\n"
    (roberta / "evil.py").write_text(code, encoding="utf-8")
    wanted = tiny_regressor(roberta).predict(SMILES)
    places = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoTokenizer": ["evil.T", None]}
    kernel = "someone/their-kernel"
    kernels = {"attn_implementation": kernel, "_attn_implementation": kernel}
    change_json(roberta / "config.json", auto_map=places, **kernels)
    change_json(roberta / "tokenizer_config.json", auto_map=places, tokenizer_class="T")
    assert np.array_equal(tiny_regressor(roberta).predict(SMILES), wanted)
    tiny_regressor(roberta).save(roberta / "out")
    assert "evil" not in (roberta / "out" / "config.json").read_text(encoding="utf-8")
    (roberta / "tokenizer.json").unlink()  # the named class is all that could read the rest
    (roberta / "vocab.txt").write_text("C\n", encoding="utf-8")
    assert "code from a hub is never run" in refused(roberta)
    change_json(roberta / "config.json", model_type="evil")
    assert "code from a hub is never run" in refused(roberta)
    assert not mark.exists()


def test_pretraining_goes_on_from_molformer_alone(roberta: Path, tmp_path: Path) -> None:
    lines = tmp_path / "molecules.smi"
    lines.write_text("\n".join(SMILES) + "\n", encoding="utf-8")
    settings = PretrainSettings(model=str(roberta), corpus=str(lines))
    with pytest.raises(ModelError, match="'roberta', not 'molformer'"):
        pretrain(settings, tmp_path / "out")


def test_loss_is_in_units_of_the_label_scale(folder: Path, peft: Peft) -> None:
    regressor = tiny_regressor(folder, peft)
    regressor.set_label_scale(LABELS)
    batch = collate(regressor.encode(SMILES).ids, regressor.pad_id)
    regressor.model.eval()
    with torch.no_grad():
        loss = regressor.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            labels=torch.tensor(LABELS, dtype=torch.float32),
        ).loss
    error = (regressor.predict(SMILES) - LABELS) / LABELS.std()
    assert float(loss) == pytest.approx(float(np.mean(error**2)), rel=1e-4)


def test_manifest_names_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    tiny_regressor(folder, "bitfit").save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["base"] == {**resolve_base(str(folder)).identity(), "name": folder.name}
    assert manifest["self_contained"] is True
