"""The native model against outputs of the published code's arithmetic, and the real weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from lipo_cli.model import MolformerForMaskedLM, MolformerForSequenceClassification
from lipo_cli.model.base import load_model, resolve_base
from lipo_cli.model.tokenizer import load_tokenizer
from tests.fixtures.models import molformer_folder

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
ASPIRIN_IDS = [0, 4, 4, 6, 12, 9, 7, 9, 5, 8, 5, 5, 5, 5, 5, 8, 4, 6, 12, 9, 7, 9, 1]
XL_SHA256 = "0795977fe7192c4acdaf052f0e8464af57bc4bb59211271c5e61aaba2637b9c6"
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def expected(parity_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(parity_dir / "expected.safetensors")


def own_loader(cls: type, folder: Path) -> torch.nn.Module:
    return load_model(cls, resolve_base(str(folder)))


def huggingface_loader(cls: type, folder: Path) -> torch.nn.Module:
    return cls.from_pretrained(folder)


Loader = Callable[[type, Path], torch.nn.Module]


def worst(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max())


@pytest.mark.parametrize("load", [own_loader, huggingface_loader])
@torch.no_grad()
def test_encoder_and_token_logits_equal_the_published_code(
    parity_dir: Path, expected: dict[str, torch.Tensor], load: Loader
) -> None:
    model = load(MolformerForMaskedLM, parity_dir).eval()
    ids, mask = expected["input_ids"], expected["attention_mask"]
    seen = mask.bool()
    assert 0 < int(seen.sum()) < seen.numel(), "the example must hold padding"
    encoded = model.molformer(ids, mask)
    assert worst(encoded.last_hidden_state[seen], expected["last_hidden_state"][seen]) < TOLERANCE
    assert worst(encoded.pooler_output, expected["pooler_output"]) < TOLERANCE
    logits = model(ids, mask).logits[..., : expected["mlm_logits"].shape[-1]]
    assert worst(logits[seen], expected["mlm_logits"][seen]) < TOLERANCE


@pytest.mark.parametrize("load", [own_loader, huggingface_loader])
@torch.no_grad()
def test_regression_head_equals_the_published_code(
    parity_dir: Path, expected: dict[str, torch.Tensor], load: Loader
) -> None:
    model = load(MolformerForSequenceClassification, parity_dir).eval()
    found = model(expected["input_ids"], expected["attention_mask"]).logits
    assert worst(found.flatten(), expected["regression"].flatten()) < TOLERANCE


def test_aspirin_has_the_published_ids(parity_dir: Path) -> None:
    assert load_tokenizer(parity_dir)(ASPIRIN).input_ids == ASPIRIN_IDS
    automatic = AutoTokenizer.from_pretrained(parity_dir)
    assert automatic(ASPIRIN).input_ids == ASPIRIN_IDS
    assert automatic("C[Xx]C%12").input_ids == load_tokenizer(parity_dir)("C[Xx]C%12").input_ids
    assert len(automatic("C").input_ids) == 3, "fixed padding must be off here too"


def test_fixed_padding_and_truncation_of_the_file_are_overridden(parity_dir: Path) -> None:
    text = (parity_dir / "tokenizer.json").read_text(encoding="utf-8")
    assert '"padding": null' not in text, "the file no longer carries what is tested here"
    tokenizer = load_tokenizer(parity_dir)
    assert len(tokenizer("C").input_ids) == 3
    assert len(tokenizer("C" * 300).input_ids) == 302
    rows = tokenizer(["C", "CCCC"]).input_ids
    assert [len(row) for row in rows] == [3, 6]


def test_published_unknown_token_is_2361(parity_dir: Path) -> None:
    tokenizer = load_tokenizer(parity_dir)
    assert len(tokenizer) == 2362
    assert tokenizer.unk_token_id == 2361
    assert tokenizer("C[Xx]C").input_ids == [0, 4, 2361, 4, 1]


@pytest.mark.slow
@torch.no_grad()
def test_real_weights_give_the_published_figures() -> None:
    folder = molformer_folder()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == XL_SHA256
    model = load_model(MolformerForMaskedLM, resolve_base(str(folder))).eval()
    ids = torch.tensor([ASPIRIN_IDS])
    pooled = model.molformer(ids).pooler_output[0, :5]
    logits = model(ids).logits[0, 0, :3]
    torch.testing.assert_close(
        pooled, torch.tensor([0.59427, 0.45265, 0.34374, 0.66782, -0.69957]), atol=1e-4, rtol=0
    )
    torch.testing.assert_close(
        logits, torch.tensor([-12.1811, -12.2346, -12.3054]), atol=1e-4, rtol=0
    )
