"""Presets of `lipo compare`: what they are made of, and what wins over what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import filelock
import pandas as pd
import pytest

from lipo_cli.chem import demo
from lipo_cli.commands import compare_output
from lipo_cli.commands.layers import settings_from
from lipo_cli.comparison import budget
from lipo_cli.comparison.plan import make_plan
from lipo_cli.errors import SettingsError
from lipo_cli.main import main
from lipo_cli.presets import FOLDER, preset_names, read_preset
from lipo_cli.settings import PEFT_METHODS, CompareSettings
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import Store, open_store
from lipo_cli.tracking.versions import list_versions
from tests.fixtures.models import tiny_checkpoint


def settings_of(name: str) -> CompareSettings:
    return settings_from(CompareSettings, None, {}, read_preset(name).layer)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_an_unknown_preset_is_one_line_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["compare", "--preset", "quik"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: --preset: no preset is called 'quik' (there are: quick, reference, seed)"
    )


@pytest.mark.parametrize("name", preset_names())
def test_every_key_has_a_comment(name: str) -> None:
    lines = (FOLDER / f"{name}.toml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) > 4
    assert [lines[n] for n in keys if not lines[n - 1].startswith("# ")] == []


@pytest.mark.parametrize("name", ["quick", "reference"])
def test_a_preset_is_a_comparison_with_its_controls(name: str) -> None:
    settings = settings_of(name)
    names = [choice.name for choice in make_plan(settings).choices]
    assert names[:2] == ["none", "all"]
    assert "tsds" in names


def test_reference_is_the_published_grid_with_three_seeds() -> None:
    settings = settings_of("reference")
    assert settings.selections == ("none", "all", "influence:top=100", "tsds")
    assert (settings.peft, settings.seeds, settings.data.split) == (PEFT_METHODS, 3, "reference")
    ours = CompareSettings().training
    assert settings.training == ours


def test_what_is_typed_wins_over_what_lies_in_the_folder(tmp_path: Path) -> None:
    """lipo.toml < preset < --config < flags: each layer sets one value more than the next."""
    (tmp_path / "lipo.toml").write_text(
        "seeds = 9\nfirst_seed = 9\n[training]\nepochs = 9\nbatch_size = 9\n"
    )
    own = tmp_path / "own.toml"
    own.write_text("seeds = 7\n[training]\nepochs = 7\n")
    preset = {"seeds": 8, "first_seed": 8, "training": {"epochs": 8}}
    numbers = [
        (s.seeds, s.first_seed, s.training.epochs, s.training.batch_size)
        for s in (
            settings_from(CompareSettings, None, {}, preset),
            settings_from(CompareSettings, None, {"epochs": 6}, preset),
            settings_from(CompareSettings, own, {}, preset),
            settings_from(CompareSettings, own, {"epochs": 6}, preset),
        )
    ]
    assert numbers == [(8, 8, 8, 9), (8, 8, 6, 9), (7, 8, 7, 32), (7, 8, 6, 32)]


def test_a_dry_run_shows_the_preset_with_the_flags_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny_checkpoint(tmp_path / "tiny"))
    flags = ["--preset", "quick", "--epochs", "3", "--model", model, "--dry-run", "--json"]
    assert main(["compare", *flags]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {cell["peft"] for cell in plan["plan"]} == {"lora"}
    assert [cell["selection"] for cell in plan["plan"]] == ["none", "all", "tsds"]
    assert plan["settings"]["data"]["dataset"] == "demo"
    assert plan["settings"]["training"]["epochs"] == 3
    assert plan["n_cells"] == 4


def test_a_preset_is_no_path() -> None:
    with pytest.raises(SettingsError, match="there are: quick"):
        read_preset("../presets/quick")


def test_no_flag_is_every_selection_by_value_with_every_method() -> None:
    settings = settings_from(CompareSettings, None, {})
    names = [choice.name for choice in make_plan(settings).choices]
    assert names == ["none", "all", "tsds", "influence", "knn"]
    assert settings.peft == PEFT_METHODS


def small_comparison(tmp_path: Path, *more: str) -> list[str]:
    model = str(tiny_checkpoint(tmp_path / "tiny"))
    for name, n in (("primary", 80), ("secondary", 20)):
        frame = pd.read_csv(Path(demo.__path__[0]) / f"{name}.csv").head(n)
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    return [
        "compare", "--dataset", "primary.csv", "--secondary", "secondary.csv", "--model", model,
        "--epochs", "1", "-s", "random:k=5", "-p", "lora", "--seeds", "2", "--precision", "float32",
        "--json", *more,
    ]  # fmt: skip


def test_a_budget_is_said_kept_and_completed_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # About 80 molecules a cell: three cells fit into 50 minutes, six do not.
    monkeypatch.setattr(budget, "measure_rates", lambda *_: {"lora": 0.1})
    arguments = small_comparison(tmp_path)
    assert main([*arguments, "--budget", "50"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert [cell["seed"] for cell in result["cells"]] == [0, 0, 0]
    assert result["left_out"] == result["budget"]["left_out"] == ["seed 1"]
    said = " ".join(shown.err.split())
    assert "left out, for the time: seed 1" in said
    assert said.count("one seed is left, and with one seed there is no verdict") == 1
    store = open_store(tmp_path / "mlruns")
    (parent,) = find_runs(store, "lipo-compare", "tags.`lipo.kind` = 'comparison'")
    assert (parent.tags["left_out"], parent.tags["budget_minutes"]) == ("seed 1", "50.0")
    page = parent.artifact("report.html").read_text()
    assert "A time budget left out: seed 1." in page

    assert main([*arguments, "--budget", "50"]) == 0
    shown = capsys.readouterr()
    assert "one seed is left" not in shown.err
    result = json.loads(shown.out)
    assert [(c["seed"], c["reused"]) for c in result["cells"]] == [
        *[(0, True)] * 3, *[(1, False)] * 3,
    ]  # fmt: skip
    assert (result["left_out"], result["budget"]["n_found"]) == ([], 3)
    assert [c["n_cells"] for c in _champions(store)] == ["6"], "of the larger comparison"


def _champions(store: Store) -> list[Mapping[str, str]]:
    return [v.tags for v in list_versions(store) if "champion" in v.aliases]


def test_a_result_is_written_by_one_process_at_a_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal comparisons find each other's cells, and end together in the same folder."""
    arguments = [*small_comparison(tmp_path), "--out", "kept"]
    monkeypatch.setattr(compare_output, "_LOCK_TIMEOUT_S", 0.1)
    (tmp_path / "kept").mkdir()
    with filelock.FileLock(tmp_path / "kept" / ".lock"):
        assert main(arguments) == 7
    assert "kept: another process has been writing its result here" in capsys.readouterr().err
    assert not (tmp_path / "kept" / "result.json").exists()
    assert main(arguments) == 0
    assert all(cell["reused"] for cell in json.loads(capsys.readouterr().out)["cells"])
    assert (tmp_path / "kept" / "report.html").is_file()


def test_where_there_are_no_locks_a_result_is_written_without_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with compare_output.only_writer(tmp_path / "kept"):
        assert (tmp_path / "kept").is_dir()
    assert "written without a lock: No locks available" in " ".join(capsys.readouterr().err.split())


def test_the_time_of_cells_side_by_side_is_not_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*small_comparison(tmp_path), "--budget", "50", "--jobs", "2"]) == 2
    assert "error: --budget: how much faster" in capsys.readouterr().err


def test_no_time_at_all_is_one_line_and_leaves_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = small_comparison(tmp_path, "--dry-run", "--budget", "0.001")
    assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(
        "error: --budget: in 0.001 minutes nothing fits: the smallest comparison"
    )
    assert not (tmp_path / "mlruns").exists()
    assert main(["compare", "--budget", "0"]) == 2
    assert main(["compare", "--budget", "nan"]) == 2
