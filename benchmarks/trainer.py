"""Our fine-tuning loop against `transformers.Trainer` on accelerate, in one run.

Both sides train the same model from the same start on the same molecules: batch size, epochs,
peak rate, warm-up, clipping, precision, batching by length, padding to a multiple, and one
validation per epoch in batches of one size are equal; neither averages weights. They take turns,
each in a process of its own (neither finds the other's compiled kernels or memory), and importing
is timed in the same processes.

    python benchmarks/trainer.py            # prints, and writes its section of docs/benchmarks.md
    python benchmarks/trainer.py --dry      # prints only
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from report import command_line, machine, write_section

if TYPE_CHECKING:
    from lipo_cli.model.regressor import Regressor
    from lipo_cli.training.examples import Examples

SIDES = ("fit", "Trainer")


@dataclass(frozen=True)
class Plan:
    """What both sides do; also what the command line says."""

    model: str
    peft: str
    epochs: int
    batch_size: int
    threads: int
    precision: str
    n_train: int

    def regressor(self) -> Regressor:
        """Returns the model both sides start from."""
        from lipo_cli.model.regressor import Regressor
        from lipo_cli.settings import TrainingSettings

        settings = TrainingSettings.model_validate(
            {
                "model": self.model,
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "precision": self.precision,
                "patience": self.epochs,
                "randomise": 0.0,
                "layer_decay": 1.0,
                "averaging": 0.0,
                "device": "cpu",
            }
        )
        return Regressor.from_base(self.peft, settings, 0)  # type: ignore[arg-type]

    def examples(self) -> tuple[str, Examples, Examples]:
        """Returns the name of the data, training and validation molecules."""
        from lipo_cli.chem.datasets import load_dataset
        from lipo_cli.chem.splits import make_split
        from lipo_cli.settings import DataSettings
        from lipo_cli.training.examples import Examples

        data = DataSettings()
        dataset = load_dataset(data)
        split = make_split(dataset.primary, data)
        every = Examples(dataset.primary.smiles, dataset.primary.labels)
        train, validation = every.take(split.train[: self.n_train]), every.take(split.val)
        return dataset.name, train, validation


@dataclass(frozen=True)
class Timing:
    """What one process measured: seconds, and how well the model predicts at its end."""

    side: str
    dataset: str
    n_train: int
    n_val: int
    import_s: float
    epoch_s: float
    epoch_cpu_s: float
    val_rmse: float
    peak_gib: float


class Stopwatch:
    """Measures wall-clock and processor time; the latter is less moved by what else runs."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """Returns both, in seconds since the start."""
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def run_fit(plan: Plan) -> Timing:
    """Times our own loop."""
    start = time.perf_counter()
    from lipo_cli.training.finetune import fit

    imported = time.perf_counter() - start
    name, train, validation = plan.examples()
    regressor = plan.regressor()
    watch = Stopwatch()
    result = fit(regressor, train, validation, seed=0)
    seconds = watch.read()
    last = result.history[-1]["val_rmse"]
    return _timing("fit", plan, name, train, validation, imported, seconds, last)


def run_trainer(plan: Plan) -> Timing:
    """Times `transformers.Trainer`, which runs on accelerate."""
    start = time.perf_counter()
    from transformers import Trainer, TrainingArguments

    import lipo_cli.training.finetune  # noqa: F401 - the model's own imports count on either side

    imported = time.perf_counter() - start
    from lipo_cli.model.batches import predicted_at_once
    from lipo_cli.training.finetune import learning_rate_of

    name, train, validation = plan.examples()
    regressor = plan.regressor()
    regressor.set_label_scale(train.labels)
    settings = regressor.settings
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=plan.epochs,
            per_device_train_batch_size=plan.batch_size,
            per_device_eval_batch_size=predicted_at_once(regressor.device),
            learning_rate=learning_rate_of(regressor),
            weight_decay=settings.weight_decay,
            lr_scheduler_type="linear",
            warmup_steps=settings.warmup,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            bf16=plan.precision == "bf16",
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            eval_strategy="epoch",
            save_strategy="no",
            logging_strategy="epoch",
            report_to="none",
            disable_tqdm=True,
            seed=0,
        )
        trainer = Trainer(
            model=regressor.model,
            args=arguments,
            train_dataset=_rows(regressor, train),
            eval_dataset=_rows(regressor, validation),
            data_collator=_collator(regressor.pad_id),
        )
        watch = Stopwatch()
        trainer.train()
        seconds = watch.read()
    head: Any = regressor.head()
    loss = next(
        row["eval_loss"] for row in reversed(trainer.state.log_history) if "eval_loss" in row
    )
    last = math.sqrt(loss) * float(head.label_scale)
    return _timing("Trainer", plan, name, train, validation, imported, seconds, last)


def _rows(regressor: Regressor, examples: Examples) -> Any:
    ids = regressor.encode(examples.smiles).ids
    return [
        {"input_ids": row, "labels": label}
        for row, label in zip(ids, examples.labels.tolist(), strict=True)
    ]


def _collator(pad_id: int) -> Any:
    import torch

    from lipo_cli.model.batches import collate

    def put_together(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = collate([row["input_ids"] for row in rows], pad_id)
        labels = torch.tensor([row["labels"] for row in rows], dtype=torch.float32)
        return {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            "labels": labels,
        }

    return put_together


def _timing(
    side: str,
    plan: Plan,
    name: str,
    train: Examples,
    validation: Examples,
    imported: float,
    seconds: tuple[float, float],
    val_rmse: float,
) -> Timing:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, else KiB
    return Timing(
        side=side,
        dataset=name,
        n_train=len(train),
        n_val=len(validation),
        import_s=imported,
        epoch_s=seconds[0] / plan.epochs,
        epoch_cpu_s=seconds[1] / plan.epochs,
        val_rmse=val_rmse,
        peak_gib=peak / (2**30 if sys.platform == "darwin" else 2**20),
    )


def measure(plan: Plan, repeats: int) -> list[Timing]:
    """Runs both sides in turn, each time in a fresh process."""
    timings = []
    environment = {**os.environ, "OMP_NUM_THREADS": str(plan.threads), "HF_HUB_OFFLINE": "1"}
    for _ in range(repeats):
        for side in SIDES:
            command = [sys.executable, __file__, "--side", side, "--plan", json.dumps(asdict(plan))]
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            timings.append(Timing(**json.loads(done.stdout.splitlines()[-1])))
            print(timings[-1], file=sys.stderr)
    return timings


def report(plan: Plan, timings: list[Timing], command: str, load: float) -> str:
    """Returns the section of the docs: what was measured, where, and the table."""
    from lipo_cli.model.batches import PAD_MULTIPLE

    first = timings[0]
    repeats = len(timings) // len(SIDES)
    rows = {side: [t for t in timings if t.side == side] for side in SIDES}
    epoch, cpu = (
        {side: statistics.median(getattr(t, name) for t in rows[side]) for side in SIDES}
        for name in ("epoch_s", "epoch_cpu_s")
    )
    versions = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "accelerate"))
    lines = [
        "## The training loop: our `fit` against `transformers.Trainer`",
        "",
        f"Fine-tuning (`{plan.peft}`) of `{plan.model}` on {first.n_train:,} molecules of "
        f"{first.dataset} with {first.n_val:,} for validation after",
        f"each of {plan.epochs} epochs; batch {plan.batch_size}, {plan.precision}, both grouped by "
        f"length and padded to a multiple of {PAD_MULTIPLE}, {plan.threads} thread(s).",
        f"Medians of {repeats} runs (lowest to highest), each in a fresh process, in turn. The "
        "RMSE is that of the last epoch.",
        "",
        "| loop | s per epoch | CPU s per epoch | molecules/s | import, s | peak GiB | RMSE |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for side in SIDES:
        epochs = sorted(t.epoch_s for t in rows[side])
        processor, imports, peaks, scores = (
            statistics.median(getattr(t, name) for t in rows[side])
            for name in ("epoch_cpu_s", "import_s", "peak_gib", "val_rmse")
        )
        cells = [
            f"`{side}`",
            f"{epoch[side]:.2f} ({epochs[0]:.2f} to {epochs[-1]:.2f})",
            f"{processor:.2f}",
            f"{first.n_train / epoch[side]:.0f}",
            f"{imports:.1f}",
            f"{peaks:.2f}",
            f"{scores:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"`Trainer` takes {epoch['Trainer'] / epoch['fit']:.2f} times as long per epoch, "
        f"{cpu['Trainer'] / cpu['fit']:.2f} times in processor time. Load "
        f"average when the runs began: {load:.1f} (0 on a quiet machine; provisional above 0.5).",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, {versions}.",
        f"Command: `{command}`",
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--model", default="small")
    parser.add_argument("--peft", default="full", choices=["full", "bitfit", "lora", "ia3"])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--precision", default="bf16", choices=["bf16", "float32"])
    parser.add_argument("--n-train", type=int, default=3024, help="at most")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--plan", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Runs the benchmark, or one side of it in a process of its own."""
    arguments = parse()
    if arguments.side:
        plan = Plan(**json.loads(arguments.plan))
        timing = run_fit(plan) if arguments.side == "fit" else run_trainer(plan)
        print(json.dumps(asdict(timing)))
        return 0
    plan = Plan(**{name: getattr(arguments, name) for name in Plan.__dataclass_fields__})
    command = command_line("trainer.py")
    load = os.getloadavg()[0]
    text = report(plan, measure(plan, arguments.repeats), command, load)
    print(text)
    if not arguments.dry:
        write_section("trainer", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
