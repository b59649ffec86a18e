"""The accuracy benchmark's own side: fine-tune, predict validation and test, keep both."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from kept_runs import KERNEL, Run, Shelf, key_of, this_device
from split_files import SplitFile

from lipo_cli.comparison.ledger import code_version
from lipo_cli.model.base import resolve_base
from lipo_cli.model.kernel import RECIPE, KernelReadout
from lipo_cli.model.precision import has_bf16
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import Peft, TrainingSettings
from lipo_cli.training.finetune import fit


def found_ours(
    splits: SplitFile, shelf: Shelf, peft: Peft, settings: TrainingSettings, seed: int, views: int
) -> tuple[str, Run | None]:
    """Returns the key of a run and the run, None where it is not kept. Arguments: `run_ours`."""
    base = resolve_base(settings.model).fingerprint  # a new checkpoint may bear an old name
    key = key_of(splits, method=peft, settings=_content(settings), base=base, seed=seed)
    return key, shelf.find(peft, seed, key, views)


def run_ours(
    splits: SplitFile, shelf: Shelf, peft: Peft, settings: TrainingSettings, seed: int, views: int
) -> Run:
    """Returns one run, trained where it is not kept; a training that was cut off goes on.

    Args:
        splits: The rows.
        shelf: Where runs are kept.
        peft: The fine-tuning method.
        settings: How it is trained.
        seed: Of the head, the batches and the dropout.
        views: SMILES of each molecule to predict, the canonical one first.
    """
    key, found = found_ours(splits, shelf, peft, settings, seed, views)
    if found is not None:
        return found
    start = time.perf_counter()
    regressor = Regressor.from_base(peft, settings, seed)
    state = shelf.stem(peft, seed, key).with_suffix(".state")
    state.parent.mkdir(parents=True, exist_ok=True)
    loading = time.perf_counter() - start
    train, validation = splits.examples("train"), splits.examples("val")
    result = fit(regressor, train, validation, seed=seed, resume_file=state)
    start = time.perf_counter()
    predicted = regressor.predict_views(list(splits.rows("val", "test")["smiles"]), views=views)
    predicting = time.perf_counter() - start
    run = shelf.keep(
        peft,
        seed,
        key,
        predicted,
        loading + result.seconds,
        predict_seconds=predicting,
        best_epoch=result.best_epoch,
        epochs=len(result.history),
        best_val_rmse=result.best_val_rmse,
        n_truncated=result.n_truncated,
        settings=_content(settings),
        base=resolve_base(settings.model).fingerprint,
        **_made_by(regressor),
    )
    state.unlink(missing_ok=True)
    return run


def run_kernel(splits: SplitFile, shelf: Shelf, settings: TrainingSettings, views: int) -> Run:
    """Returns the kernel readout of the pretrained encoder, fitted where it is not kept.

    Args:
        splits: The rows.
        shelf: Where runs are kept.
        settings: Names the pretrained model.
        views: SMILES of each molecule to predict, the canonical one first.
    """
    base = resolve_base(settings.model).fingerprint
    content = _content(settings)
    key = key_of(splits, method=KERNEL, settings=content, base=base, recipe=RECIPE)
    if (found := shelf.find(KERNEL, 0, key, views)) is not None:
        return found
    start = time.perf_counter()
    train = splits.examples("train")
    readout = KernelReadout.fit(settings, train.smiles, train.labels)
    fitting = time.perf_counter() - start
    predicted = readout.predict_views(list(splits.rows("val", "test")["smiles"]), views=views)
    about = {"settings": content, "base": base, **_made_by(readout.encoder)}
    return shelf.keep(KERNEL, 0, key, predicted, fitting, **about)


def _content(settings: TrainingSettings) -> dict[str, Any]:
    """Returns the settings that count: a patience that cannot run out is that of none."""
    content = settings.model_dump(mode="json")
    content["patience"] = min(content["patience"] or settings.epochs, settings.epochs)
    del content["equal_steps"]  # of data that are added, and none are
    return content


def _made_by(regressor: Regressor) -> dict[str, str]:
    """Returns what a run was made with and on: a report says where it is not today's."""
    precision = regressor.settings.precision
    if precision == "auto":
        precision = "bf16" if has_bf16(regressor.device) else "float32"
    return {
        "code": code_version(),
        "precision": precision,
        "device": this_device(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }
