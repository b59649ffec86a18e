"""`lipo compare --preset seed` on a few molecules and a tiny model, whole, killed and again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lipo_cli.chem import demo
from lipo_cli.commands import seed_preset
from lipo_cli.errors import ModelError, TrainingError
from lipo_cli.main import main
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from tests.fixtures.models import tiny_checkpoint

DEMO = Path(demo.__path__[0])
EPOCHS = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seed")
    tiny_checkpoint(folder / "tiny")
    for name, n in (("primary", 120), ("secondary", 110)):
        pd.read_csv(DEMO / f"{name}.csv").head(n).to_csv(folder / f"{name}.csv", index=False)
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    return [
        "compare", "--preset", "seed", "--dataset", str(folder / "primary.csv"),
        "--secondary", str(folder / "secondary.csv"), "--model", str(folder / "tiny"),
        "--epochs", str(EPOCHS), "--precision", "float32", "--store", str(folder / "mlruns"), *more,
    ]  # fmt: skip


def run(folder: Path, capsys: pytest.CaptureFixture[str], *more: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main(arguments(folder, "--json", *more)) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_a_table_that_fails_stops_no_other_and_all_is_found_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def no_adaptation(*_: object) -> Path:
            raise ModelError("there is no LM head")

        def no_second(settings: Any, *rest: Any, **more: Any) -> Any:
            if "influence:positive" in settings.selections:
                raise TrainingError("the loss became nan")
            return run_recorded(settings, *rest, **more)

        run_recorded = seed_preset.run_recorded
        broken.setattr(seed_preset, "_adapt", no_adaptation)
        broken.setattr(seed_preset, "run_recorded", no_second)
        part = run(folder, capsys, code=9)
    errors = {(c["task"], c["label"]): c["error"] for c in part["tables"]}
    assert errors["task1", "MLM-adapted, then regression"] == "there is no LM head"
    assert errors["task1", "baseline regression"] is None
    assert {e for (task, _), e in errors.items() if task == "task2"} == {"the loss became nan"}
    assert {e for (task, _), e in errors.items() if task == "task3"} == {None}

    whole = run(folder, capsys)
    assert [c["error"] for c in whole["tables"]] == [None] * 17
    assert all(c["test_rmse"] > 0 and c["n_seeds"] == 1 for c in whole["tables"])
    assert [c["test_rmse"] for c in whole["tables"][-12:]] == [
        c["test_rmse"] for c in part["tables"][-12:]
    ]
    assert whole["tables"][0]["test_rmse"] == part["tables"][0]["test_rmse"]
    one, two = whole["tables"][:2]
    assert one["test_rmse"] != two["test_rmse"], "the adapted model is the base"
    third = whole["comparisons"]["task3"]
    assert all(c["reused"] for c in third["cells"])
    assert third["champion"] is None, "a recipe rerun to be looked at names no champion"
    adapted = Path(whole["adapted_model"])
    assert adapted.parent == folder / "mlruns" / "adapted"
    assert json.loads((adapted / "pretrain.json").read_text())["settings"]["epochs"] == EPOCHS

    assert main(arguments(folder)) == 0
    shown = capsys.readouterr()
    assert shown.err.count("seed 0: found") == 19
    assert "seed 0: done" not in shown.err
    for text in ("1.1352", "2.6366", "Task 2: data chosen by influence", "- One seed there"):
        assert text in shown.out
    store = open_store(folder / "mlruns")
    runs = find_runs(store, "lipo-compare")
    assert {r.status for r in runs} == {"FINISHED"}
    (parent,) = [r for r in runs if r.tags["lipo.kind"] == "tables"]
    assert parent.metrics["failed_cells"] == 0
    for name in ("test_rmse_beside_reference", "training_time_beside_reference"):
        assert parent.artifact(f"figures/{name}.png").stat().st_size > 5000
    written = pd.read_csv(parent.artifact("tables/seed_tables.csv"))
    assert written["test_rmse"].tolist() == pytest.approx([c["test_rmse"] for c in whole["tables"]])
    assert len(find_runs(store, "lipo-pretrain")) == 1, "adapted once"


def test_the_plan_counts_every_cell_and_the_adaptation(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = run(folder, capsys, "--dry-run", "--seeds", "2", "--store", str(folder / "none"))
    assert {t: each["n_cells"] for t, each in plan["tables"].items()} == {
        "task1": 4, "task2": 6, "task3": 24,
    }  # fmt: skip
    parts = [each[n] for each in plan["tables"].values() for n in ("seconds", "seconds_adapting")]
    assert plan["seconds"] == pytest.approx(sum(parts))
    assert plan["adapt"]["epochs"] == EPOCHS
    assert plan["adapt"]["mask"] == 0.15
    assert any("seeds = 2" in sentence for sentence in plan["differences"])
    assert not any("The 300 secondary labels" in sentence for sentence in plan["differences"])
    assert not (folder / "none").exists()


@pytest.mark.slow
def test_what_is_true_of_the_published_data_is_said_of_them_alone(
    folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = ["--dataset", "lipophilicity", "--data-dir", str(data_dir), "--dry-run"]
    for secondary, said in ((data_dir, True), (folder, False)):
        plan = run(folder, capsys, *real, "--secondary", str(secondary / "secondary.csv"))
        sentences = [text for text in plan["differences"] if "The 300 secondary labels" in text]
        assert bool(sentences) is said


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["--selection", "tsds"], "--selection"),
        (["--peft", "lora"], "--peft"),
        (["--controls"], "--controls"),
        (["--budget", "5"], "--budget"),
        (["--split", "random", "--splits", "2"], "--splits"),
        (["--tune", "3"], "--tune"),
    ],
)
def test_the_tables_are_what_they_are(
    flags: list[str], place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--preset", "seed", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {place}: the preset 'seed' ")
