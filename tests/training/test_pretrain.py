"""Pretraining as a whole: it learns, it goes on exactly, and its folder is a checkpoint."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lipo_cli.chem.splits import make_split
from lipo_cli.chem.tables import read_table
from lipo_cli.errors import Interrupted, ModelError, TrainingError
from lipo_cli.model import MolformerForMaskedLM
from lipo_cli.model.base import load_model, resolve_base
from lipo_cli.model.regressor import Regressor
from lipo_cli.model.tokenizer import load_tokenizer
from lipo_cli.settings import DataSettings, PretrainSettings
from lipo_cli.training.masked_lm import encode, token_loss, unigram_loss
from lipo_cli.training.masking import IGNORED, MaskedBatch, held_out_batches
from lipo_cli.training.pretrain import pretrain
from lipo_cli.training.pretrain_folder import PretrainFolder
from lipo_cli.training.pretrain_loop import Course
from lipo_cli.training.pretrain_source import adaptation_source
from tests.fixtures.corpora import regular_molecules, write_lines
from tests.fixtures.models import tiny_settings
from tests.fixtures.pretraining import StopAt, assert_same_bits, settings_of, without_seconds
from tests.training.test_pretrain_masking import corpus_of, spec_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def corpus_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "corpus.smi", regular_molecules(200))


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


# What is computed


def test_loss_is_that_of_the_whole_model_at_the_asked_places(tiny: Path) -> None:
    model = load_model(MolformerForMaskedLM, resolve_base(str(tiny))).eval()
    smiles = regular_molecules(12)
    spec = spec_of(smiles, vocabulary=load_tokenizer(tiny).get_vocab(), share=0.4)
    batch = held_out_batches(smiles, np.arange(12, dtype=np.int64), spec)[0]
    labels = np.full(batch.input_ids.size, IGNORED)
    asked = batch.labels != IGNORED
    labels[batch.slots[asked]] = batch.labels[asked]
    ids = torch.from_numpy(batch.input_ids)
    mask = (ids != spec.pad).long()
    whole = model(ids, mask, labels=torch.from_numpy(labels.reshape(batch.input_ids.shape)))
    cpu = torch.device("cpu")
    hidden = encode(model, batch, cpu).last_hidden_state
    loss, right = token_loss(model, hidden, batch, cpu, "float32")
    assert loss.item() / batch.n_asked == pytest.approx(whole.loss.item(), rel=1e-5)
    guesses = whole.logits.argmax(-1).reshape(-1).numpy()
    assert int(right) == int((guesses == labels).sum())


def test_unigram_loss_is_the_entropy_of_a_one_token_world() -> None:
    corpus = corpus_of(["C" * 10, "C" * 20])
    spec = spec_of(["C"])
    batches = held_out_batches(list(corpus), np.arange(2, dtype=np.int64), spec)
    assert unigram_loss(corpus, batches, spec) == pytest.approx(0.0, abs=1e-12)


def test_unigram_loss_by_hand() -> None:
    corpus = corpus_of(["CCCO", "CCC"])  # C 6 times, O once, each counted once more
    spec = spec_of(["CO"])
    c, o = spec.vocabulary["C"], spec.vocabulary["O"]
    batch = MaskedBatch(
        rows=np.array([0]),
        input_ids=np.zeros((1, 16), dtype=np.int64),
        lengths=np.array([5]),
        slots=np.array([1, 2, 0]),
        labels=np.array([c, o, IGNORED]),
    )
    expected = -(np.log(7 / 9) + np.log(2 / 9)) / 2
    assert unigram_loss(corpus, [batch], spec) == pytest.approx(expected)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    for decay in ("cosine", "linear"):
        course = Course(steps=100, peak=1.0, warmup=10, decay=decay, evaluate_every=10)
        rates = [course.learning_rate(step) for step in range(101)]
        assert rates[:11] == pytest.approx([*np.linspace(0.1, 1, 10), 1.0])
        assert rates[55] == pytest.approx(0.5)
        assert rates[100] == pytest.approx(0.0)
        assert all(a >= b for a, b in pairwise(rates[10:]))


def test_epochs_are_counted_in_whole_steps(corpus_file: Path, tmp_path: Path) -> None:
    settings = settings_of(corpus_file, steps=None, epochs=2, accumulate=3)
    result = pretrain(settings, tmp_path / "out")
    n_batches = -(-result.n_train // 16)
    assert result.total_steps == 2 * n_batches // 3
    assert result.history[-1]["epoch"] == pytest.approx(2, abs=0.5)


def test_batches_of_a_step_weigh_by_their_tokens(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches accumulated move the weights as their tokens in one batch would."""
    import lipo_cli.training.pretrain_loop as loop

    steps: list[tuple[list[MaskedBatch], dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    original = loop.Trainer._step

    def watched(self: loop.Trainer, batches: Any, progress: Any) -> None:
        taken: list[MaskedBatch] = []
        before = {n: p.detach().clone() for n, p in self.model.named_parameters()}
        original(self, (taken.append(b) or b for b in batches), progress)  # type: ignore[func-returns-value]
        gradients = {
            n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None
        }
        steps.append((taken, before, gradients))

    monkeypatch.setattr(loop.Trainer, "_step", watched)
    monkeypatch.setattr(loop, "MAX_GRADIENT_NORM", 1e9)
    out = tmp_path / "out"
    settings = settings_of(corpus_file, steps=1, accumulate=2, batch_size=8, dropout=0.0)
    pretrain(settings, out)
    batches, before, gradients = steps[0]
    assert len(batches) == 2
    assert batches[0].n_asked != batches[1].n_asked
    model = load_model(MolformerForMaskedLM, resolve_base(str(out)))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model.load_state_dict(before, strict=False)
    cpu = torch.device("cpu")
    hidden = [encode(model, b, cpu).last_hidden_state for b in batches]
    losses = [
        token_loss(model, h, b, cpu, "float32")[0] for h, b in zip(hidden, batches, strict=True)
    ]
    (sum(losses) / sum(b.n_asked for b in batches)).backward()  # type: ignore[union-attr]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6)


# What it learns


@pytest.mark.slow
def test_model_learns_more_than_token_frequencies(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "corpus.smi", regular_molecules(400))
    settings = settings_of(
        file, steps=None, epochs=25, batch_size=32, randomise=0.0, dropout=None, learning_rate=4e-3
    )
    result = pretrain(settings, tmp_path / "out")
    assert result.val_loss < 0.6 * result.unigram_loss
    assert result.val_accuracy > 0.6
    assert result.history[0]["val_loss"] > result.unigram_loss
    assert result.history[-1]["train_loss"] < 0.6 * result.unigram_loss


def test_continuing_starts_at_the_checkpoints_own_loss(corpus_file: Path, tmp_path: Path) -> None:
    first = pretrain(settings_of(corpus_file, steps=60, learning_rate=4e-3), tmp_path / "a")
    again = settings_of(corpus_file, model=str(tmp_path / "a"), steps=40, learning_rate=2e-3)
    second = pretrain(again, tmp_path / "b")
    assert second.history[0]["val_loss"] == pytest.approx(first.val_loss, rel=1e-5)
    assert second.val_loss < first.val_loss
    assert not second.new_head
    same = (tmp_path / "a" / "tokenizer.json").read_text()
    assert (tmp_path / "b" / "tokenizer.json").read_text() == same


def test_unknown_tokens_of_a_checkpoint_are_counted(tiny: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "c.smi", [*regular_molecules(30), "C[Si](C)(C)C", "C[Se]C"])
    notes: list[str] = []
    result = pretrain(
        settings_of(file, model=str(tiny), steps=2),
        tmp_path / "out",
        on_corpus=lambda report, told: notes.extend(told),
    )
    assert result.n_unknown == 2
    assert any("2 molecules have tokens" in note for note in notes)


def test_checkpoint_without_lm_head_gets_a_new_one_and_says_so(
    tiny: Path, tmp_path: Path, corpus_file: Path
) -> None:
    folder = tmp_path / "encoder"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    encoder = {k: v for k, v in weights_of(tiny).items() if not k.startswith("lm_head")}
    save_file(encoder, folder / "model.safetensors")
    notes: list[str] = []
    result = pretrain(
        settings_of(corpus_file, model=str(folder), steps=1),
        tmp_path / "out",
        on_corpus=lambda report, told: notes.extend(told),
    )
    assert result.new_head
    assert any("no LM head" in note for note in notes)


def test_tokenizer_larger_than_the_embeddings_is_refused(tmp_path: Path, tiny: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((tiny / name).read_bytes())
    content = json.loads((tiny / "tokenizer.json").read_text())
    content["model"]["vocab"]["[Xe]"] = 4000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    file = write_lines(tmp_path / "c.smi", regular_molecules(20))
    with pytest.raises(ModelError):
        pretrain(settings_of(file, model=str(folder)), tmp_path / "out")


def test_diverged_run_is_an_error_and_leaves_no_model(corpus_file: Path, tmp_path: Path) -> None:
    settings = settings_of(corpus_file, learning_rate=1e30, warmup=0)
    with pytest.raises(TrainingError, match="loss"):
        pretrain(settings, tmp_path / "out")
    assert not (tmp_path / "out" / "model.safetensors").exists()


# The folder


def test_folder_is_a_checkpoint_that_finetunes(corpus_file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    out = tmp_path / "out"
    result = pretrain(settings_of(corpus_file), out)
    base = resolve_base(str(out))
    report = json.loads((out / "pretrain.json").read_text())
    assert report["weights_sha256"] == base.sha256
    assert report["corpus"]["n_kept"] == 200
    assert report["settings"]["size"] == "tiny"
    assert str(tmp_path) not in json.dumps(report["identity"])
    assert sum(v.numel() for k, v in weights_of(out).items() if "feature_map" not in k) == (
        result.n_parameters
    )
    regressor = Regressor.from_base("full", tiny_settings(out), 0)
    assert np.isfinite(regressor.predict(regular_molecules(3))).all()
    auto = AutoModelForMaskedLM.from_pretrained(out)
    assert type(auto).__name__ == "MolformerForMaskedLM"
    ids = AutoTokenizer.from_pretrained(out)("CCO").input_ids
    assert ids == load_tokenizer(out)("CCO").input_ids
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "state").exists()
    with (out / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["step"]) for row in rows] == [0, 8, 16, 24]
    assert rows[0]["train_loss"] == ""


def test_half_precision_folder_keeps_the_features_whole(corpus_file: Path, tmp_path: Path) -> None:
    whole, half = tmp_path / "whole", tmp_path / "half"
    pretrain(settings_of(corpus_file), whole)
    pretrain(settings_of(corpus_file, half=True), half)
    for name, value in weights_of(half).items():
        exact = weights_of(whole)[name]
        if "feature_map" in name:
            assert torch.equal(value, exact)
        else:
            assert value.dtype == torch.float16
            torch.testing.assert_close(value.float(), exact, rtol=1e-3, atol=1e-4)
    assert load_model(MolformerForMaskedLM, resolve_base(str(half))).dtype == torch.float32


def test_finished_run_is_read_back_and_not_computed_again(
    corpus_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = pretrain(settings_of(corpus_file), out)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    rows: list[dict[str, float]] = []
    second = pretrain(settings_of(corpus_file, max_minutes=9), out, on_row=rows.append)
    assert second == first
    assert rows == []
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp


def test_folder_of_another_run_is_refused(corpus_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pretrain(settings_of(corpus_file, steps=1), out)
    with pytest.raises(TrainingError, match=r"mask was 0\.2, is 0\.3"):
        pretrain(settings_of(corpus_file, steps=1, mask=0.3), out)
    corpus_file.write_text(corpus_file.read_text() + "CCO\n")
    with pytest.raises(TrainingError, match="data was"):
        pretrain(settings_of(corpus_file, steps=1), out)


def test_foreign_model_is_never_overwritten(corpus_file: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds a model already"):
        pretrain(settings_of(corpus_file, model=str(tiny)), tiny)
    assert sorted(f.name for f in tiny.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def test_second_process_in_the_same_folder_is_refused(corpus_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with PretrainFolder(out).locked(), pytest.raises(TrainingError, match="another process"):
        pretrain(settings_of(corpus_file), out)


# Going on


def test_stopped_run_goes_on_to_the_same_bits(corpus_file: Path, tmp_path: Path) -> None:
    settings = settings_of(corpus_file, accumulate=2)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    straight = pretrain(settings, whole)
    for step in (7, 4):
        with pytest.raises(Interrupted) as caught:
            pretrain(settings, parts, stop=StopAt(step))
        assert caught.value.exit_code == 143
        assert (parts / "state" / "checkpoint.pt").is_file()
        assert not (parts / "model.safetensors").exists()
    resumed = pretrain(settings, parts)
    assert_same_bits(whole, parts)
    assert without_seconds(resumed.history) == without_seconds(straight.history)


def test_time_limit_pauses_with_a_usable_model(corpus_file: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pretrain(settings_of(corpus_file, steps=3), whole)
    settings = settings_of(corpus_file, steps=3, max_minutes=1e-9)
    seen = []
    for _ in range(3):
        result = pretrain(settings, parts)
        seen.append((result.status, result.steps))
        resolve_base(str(parts))
    assert seen == [("paused", 1), ("paused", 2), ("finished", 3)]
    assert_same_bits(whole, parts)


def test_unreadable_checkpoint_is_an_error_and_not_a_new_start(
    corpus_file: Path, tmp_path: Path
) -> None:
    settings = settings_of(corpus_file)
    with pytest.raises(Interrupted):
        pretrain(settings, tmp_path / "out", stop=StopAt(3))
    (tmp_path / "out" / "state" / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="cannot be read"):
        pretrain(settings, tmp_path / "out")


CHILD = """
import sys
from itertools import pairwise
from pathlib import Path
from lipo_cli.progress import SilentProgress
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.pretrain import pretrain

class Told(SilentProgress):
    def advance(self, n=1, **fields):
        if "step" in fields:
            print(fields["step"], flush=True)

if __name__ == "__main__":
    settings = PretrainSettings.model_validate_json(sys.argv[2])
    pretrain(settings, Path(sys.argv[1]), progress=Told())
"""


def start_child(tmp_path: Path, out: Path, settings: PretrainSettings) -> subprocess.Popen[str]:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    return subprocess.Popen(
        [sys.executable, str(script), str(out), settings.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_killed_run_goes_on_to_the_same_bits(corpus_file: Path, tmp_path: Path) -> None:
    settings = settings_of(corpus_file, steps=60, checkpoint_every=4, accumulate=2, randomise=0.7)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    straight = pretrain(settings, whole)
    at = random.randint(5, 50)
    child = start_child(tmp_path, killed, settings)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= at:
            child.kill()
            break
    assert child.wait() == -signal.SIGKILL, f"to be killed at step {at}"
    child.stdout.close()
    assert not (killed / "model.safetensors").exists()
    assert (killed / "state" / "checkpoint.pt").is_file()
    resumed = pretrain(settings, killed)
    assert_same_bits(whole, killed)  # wherever it was killed
    assert without_seconds(resumed.history) == without_seconds(straight.history)


# Adapting


def test_adaptation_reads_train_and_validation_and_never_test(tmp_path: Path) -> None:
    smiles = regular_molecules(100)
    file = write_lines(
        tmp_path / "data.csv", ["smiles,exp", *[f"{text},{i}" for i, text in enumerate(smiles)]]
    )
    table = read_table(file)
    split = make_split(table, DataSettings(split="random"))
    source = adaptation_source(table, split, "demo")
    read = {text for _, text in source.pairs()}
    assert read == {smiles[i] for i in [*split.train, *split.val]}
    assert not read & {smiles[i] for i in split.test}
    assert source.identity["split"] == split.fingerprint()


def test_molecule_in_train_and_test_counts_as_test(tmp_path: Path) -> None:
    smiles = regular_molecules(50)
    file = write_lines(
        tmp_path / "data.csv",
        ["smiles,exp", *[f"{text},{i}" for i, text in enumerate([*smiles, *smiles])]],
    )
    table = read_table(file, duplicates="keep")
    split = make_split(table, DataSettings(split="random", keep_stereo_groups=False))
    test = {table.smiles[i] for i in split.test}
    assert not {text for _, text in adaptation_source(table, split, "x").pairs()} & test


def test_settings_need_one_source() -> None:
    for wrong in (
        {},
        {"adapt": True},
        {"adapt": True, "model": "small", "corpus": "c.smi"},
        {"corpus": "c.smi", "epochs": 1, "steps": 1},
    ):
        with pytest.raises(ValueError, match=r"(corpus|from|file|epochs)"):
            PretrainSettings.model_validate(wrong)
