"""Several processes take the steps of one, started as users start them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lipo_cli.errors import SettingsError
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.pretrain import pretrain
from lipo_cli.training.ranks import Ranks
from tests.fixtures.corpora import regular_molecules, write_lines
from tests.fixtures.pretraining import settings_of

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import sys
from pathlib import Path
from lipo_cli.settings import PretrainSettings
from lipo_cli.training.pretrain import pretrain

if __name__ == "__main__":
    rows = []
    settings = PretrainSettings.model_validate_json(sys.argv[2])
    result = pretrain(settings, Path(sys.argv[1]), on_row=rows.append)
    print("ROWS", len(rows), result.status, result.steps, flush=True)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(tmp_path: Path, out: Path, settings: PretrainSettings) -> str:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    # `accelerate launch` starts several processes on GPUs; on a CPU this is its equal.
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--master_port", str(free_port())]
    command += [str(script), str(out), settings.model_dump_json()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "corpus.smi", regular_molecules(120))
    settings = settings_of(
        file, objective="both", accumulate=2, steps=9, evaluate_every=3, max_minutes=60
    )
    alone = pretrain(settings, tmp_path / "alone")
    told = launch(tmp_path, tmp_path / "two", settings)
    # The first process reports the rows of the history, the second none.
    assert sorted(told.split("ROWS")[1:]) == [" 0 finished 9\n", " 4 finished 9\n"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("alone", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5)
    assert alone.status == "finished"


def test_batches_are_dealt_out_once_each() -> None:
    ranks = Ranks("cpu")
    assert list(ranks.mine(3)) == [0, 1, 2]
    assert ranks.sums([1.0, 2.0]) == [1.0, 2.0]
    dealt = []
    for rank in range(4):
        ranks.rank, ranks.size = rank, 4
        dealt += list(ranks.mine(8))
    assert sorted(dealt) == list(range(8))


def test_uneven_batches_are_refused() -> None:
    ranks = Ranks("cpu")
    ranks.check(3)
    ranks.size = 2
    with pytest.raises(SettingsError, match="dealt out to 2"):
        ranks.check(3)
