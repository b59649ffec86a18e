"""Prediction with the adapter inside the weights, and through the adapter's own layers.

Both ways in turn in one process, on the same molecules of like length; ratios within a round. What
it costs to merge and to undo it is part of every prediction: few molecules do not pay for it, which
is what `WORTH_MERGING` is for.

    python benchmarks/merging.py            # prints, and writes its section of docs/benchmarks.md
    python benchmarks/merging.py --dry      # prints only
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from numpy.typing import NDArray
from report import add_output_options, machine, settle_page, write_section
from turns import take_turns

from lipo_cli.chem.datasets import load_dataset
from lipo_cli.model import merging as adapters
from lipo_cli.model.precision import has_bf16
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, Peft, TrainingSettings

METHODS: tuple[Peft, ...] = ("lora", "ia3")
_SAME, _SAME_IN_BF16 = 1e-3, 2e-2
"""Predictions in label units may differ by rounding alone."""


@dataclass(frozen=True)
class Compared:
    """Seconds of both ways, a number for each round."""

    peft: Peft
    n: int
    merged: tuple[float, ...]
    layers: tuple[float, ...]

    @property
    def gain(self) -> float:
        """How many times as fast the merged way is: the median of the rounds' ratios."""
        return float(np.median(np.divide(self.layers, self.merged)))


def compare(regressor: Regressor, smiles: Sequence[str], repeats: int) -> Compared:
    """Times both ways in turn.

    Raises:
        SystemExit: they predict differently.
    """
    before = adapters.WORTH_MERGING

    def predict(worth: int) -> NDArray[np.float64]:
        adapters.WORTH_MERGING = worth
        return regressor.predict(smiles)

    try:
        taken, found = take_turns(
            {"merged": lambda: predict(0), "layers": lambda: predict(sys.maxsize)}, repeats
        )
    finally:
        adapters.WORTH_MERGING = before
    merged, layers = found.values()
    same = _SAME_IN_BF16 if has_bf16(regressor.device) else _SAME
    if not np.allclose(merged, layers, rtol=0, atol=same):
        raise SystemExit(f"the two ways differ by {np.abs(merged - layers).max():.1e}")
    return Compared(regressor.peft, len(smiles), *taken.values())


def measure(arguments: argparse.Namespace) -> list[Compared]:
    """Compares both ways for each method and number of molecules."""
    smiles = load_dataset(DataSettings(dataset="demo")).primary.smiles
    found = []
    for peft in METHODS:
        settings = TrainingSettings(model=arguments.model, device="cpu")
        regressor = Regressor.from_base(peft, settings, 0)
        generator = torch.Generator().manual_seed(0)
        for parameter in regressor.model.parameters():
            if parameter.requires_grad:  # LoRA's B begins at zero: there would be nothing to add
                parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        regressor.model.eval()
        for n in arguments.molecules:
            found.append(compare(regressor, smiles[:n], max(3, arguments.most // n)))
            print(f"{peft}, {n}: {found[-1].gain:.2f}", file=sys.stderr)
    return found


def section(found: Sequence[Compared], model: str, load: float) -> str:
    """Returns the section of the docs."""
    return "\n".join(
        [
            "## Adapters inside the weights while predicting",
            "",
            f"`Regressor.predict` on `{model}`, {torch.get_num_threads()} thread(s): medians over "
            "rounds in which both ways take turns.",
            "",
            "| method | molecules | through the adapter's layers, ms | merged, ms | faster by |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {row.peft} | {row.n} | {np.median(row.layers) * 1e3:.0f} "
                f"| {np.median(row.merged) * 1e3:.0f} | {row.gain:.2f}x |"
                for row in found
            ),
            "",
            f"lipo merges from {adapters.WORTH_MERGING} SMILES on. "
            f"Machine: {machine()}, load {load:.1f}; Python {platform.python_version()}, "
            f"torch {version('torch')}, "
            f"peft {version('peft')}. Command: `python benchmarks/merging.py --model {model} "
            f"--threads {torch.get_num_threads()}`",
        ]
    )


def main(given: Sequence[str] | None = None) -> int:
    """Measures, and writes docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="small", help="checkpoint")
    parser.add_argument("--threads", type=int, default=1)
    add_output_options(parser)
    arguments = parser.parse_args(given)
    arguments.molecules = (1, 8) if arguments.quick else (1, 16, 64, 256, 1024)
    arguments.most = 16 if arguments.quick else 2048
    settle_page(arguments)
    load = os.getloadavg()[0]
    torch.set_num_threads(arguments.threads)
    text = section(measure(arguments), arguments.model, load)
    print(text)
    if arguments.page is not None:
        write_section("merging", text, arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
