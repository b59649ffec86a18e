"""The accuracy benchmark's peer: chemprop 2 by its command line, in an environment of its own.

chemprop needs lightning and pins of its own, so it is no dependency of ours: it runs by the path
of its environment's python, with its defaults, on the CPU, on our split file.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from kept_runs import COMMITTED, PEER, Run, Shelf, key_of
from split_files import SplitFile

QUICK = ("--epochs", "3")
"""chemprop refuses fewer epochs than its two of warm-up."""
# The environment's scripts may have been moved or be missing; its python is what was named.
_CLI = "import sys; from chemprop.cli.main import main; sys.exit(main())"
_VERSIONS = (
    "import json; from importlib.metadata import version; "
    "print(json.dumps({p: version(p) for p in ('chemprop', 'torch', 'lightning', 'rdkit')}))"
)


@dataclass(frozen=True)
class Chemprop:
    """An installed chemprop.

    Attributes:
        python: The python of its environment; None where there are kept runs alone.
        versions: Of chemprop and what it computes with.
        options: Options of `chemprop train` beyond the data, the seeds and the device.
    """

    python: Path | None
    versions: dict[str, str]
    options: tuple[str, ...] = ()

    @classmethod
    def find(cls, python: Path, options: Sequence[str] = ()) -> Chemprop:
        """Asks an environment for its versions.

        Raises:
            SystemExit: chemprop 2 is not installed there.
        """
        try:
            done = subprocess.run(
                [python, "-c", _VERSIONS], capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise SystemExit(f"--chemprop {python}: {error.strerror}") from None
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
            raise SystemExit(f"--chemprop {python}: {reason}")
        versions: dict[str, str] = json.loads(done.stdout)
        if not versions["chemprop"].startswith("2."):
            raise SystemExit(f"--chemprop {python}: chemprop {versions['chemprop']}, not 2")
        return cls(python.absolute(), versions, tuple(options))

    @classmethod
    def committed(cls) -> Chemprop:
        """Returns the chemprop of the runs that came with the repository; it cannot train."""
        written = json.loads((COMMITTED / "versions.json").read_text(encoding="utf-8"))
        return cls(None, written)

    def train_command(self, data: Path, folder: Path, seed: int) -> list[str]:
        """Returns the command that trains one model with its defaults."""
        return [
            *(str(self.python), "-c", _CLI, "train"),
            *("--data-path", str(data), "--smiles-columns", "smiles"),
            *("--target-columns", "label", "--splits-column", "split"),
            *("--task-type", "regression", "--accelerator", "cpu", "--devices", "1"),
            *("--data-seed", str(seed), "--pytorch-seed", str(seed)),
            *("--save-dir", str(folder), *self.options),
        ]

    def predict_command(self, data: Path, model: Path, out: Path) -> list[str]:
        """Returns the command that predicts the molecules of a file."""
        return [
            *(str(self.python), "-c", _CLI, "predict", "--test-path", str(data)),
            *("--smiles-columns", "smiles", "--preds-path", str(out)),
            *("--model-paths", str(model), "--accelerator", "cpu", "--devices", "1"),
        ]

    def run(self, splits: SplitFile, shelf: Shelf, seed: int) -> Run:
        """Returns one run, trained where it is not kept.

        Raises:
            SystemExit: chemprop failed; its log is named.
        """
        key = key_of(splits, method=PEER, versions=self.versions, options=self.options, seed=seed)
        if (found := shelf.find(PEER, seed, key)) is not None:
            return found
        if self.python is None:
            raise SystemExit(
                f"no run of chemprop with seed {seed} on this split came with the repository: give "
                "--chemprop PYTHON, or fewer --seeds"
            )
        log = shelf.stem(PEER, seed, key).with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=log.parent, prefix=".chemprop-") as scratch:
            work = Path(scratch).absolute()
            data, molecules, out = (work / name for name in ("split.csv", "rows.csv", "out.csv"))
            splits.frame.to_csv(data, index=False)
            splits.rows("val", "test")[["smiles"]].to_csv(molecules, index=False)
            start = time.perf_counter()
            _call(self.train_command(data, work / "saved", seed), work, log)
            seconds = time.perf_counter() - start
            start = time.perf_counter()
            model = work / "saved" / "model_0" / "best.pt"
            _call(self.predict_command(molecules, model, out), work, log)
            predicting = time.perf_counter() - start
            values = pd.read_csv(out)["label"].to_numpy(np.float64)[:, None]
        return shelf.keep(
            PEER,
            seed,
            key,
            values,
            seconds,
            predict_seconds=predicting,
            versions=self.versions,
            options=self.options,
        )


def _call(command: list[str], folder: Path, log: Path) -> None:
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(
            command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        raise SystemExit(f"chemprop {command[3]} failed with exit code {done.returncode}: {log}")
