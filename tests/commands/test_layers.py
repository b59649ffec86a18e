"""Every flag finds its setting, and only those that were given do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer

from lipo_cli.commands.layers import _say_once, flags_layer, settings_from
from lipo_cli.errors import SettingsError
from lipo_cli.main import build_app
from lipo_cli.settings import (
    CompareSettings,
    DataSettings,
    FinetuneSettings,
    ScoreSettings,
    Settings,
    TrainingSettings,
)

PANELS: dict[str, type[Settings]] = {"Data": DataSettings, "Fine-tuning": TrainingSettings}


def leaves(command: Any) -> list[Any]:
    """Returns the commands at the ends: Typer brings a click of its own, so they are Any."""
    below = getattr(command, "commands", {}).values()
    return [leaf for each in below for leaf in leaves(each)] if below else [command]


def test_every_shared_option_is_named_as_its_field() -> None:
    """A flag goes to the field of its parameter's name: under another name it would be lost."""
    options = [
        (option.name, panel)
        for command in leaves(typer.main.get_command(build_app()))
        for option in command.params
        if (panel := getattr(option, "rich_help_panel", None)) in PANELS
        and command.name != "pretrain"  # has a table of its own
    ]
    assert len(options) > 60
    for name, panel in options:
        assert name in PANELS[panel].model_fields


@pytest.mark.parametrize(
    ("command", "kind", "own"),
    [
        (
            "compare",
            CompareSettings,
            {"out", "dry_run", "preset", "budget", "jobs", "tune_storage"},
        ),
        ("score", ScoreSettings, {"out", "top"}),
        ("finetune", FinetuneSettings, {"out", "tune_storage"}),
    ],
)
def test_every_option_of_a_command_is_a_setting_or_its_own(
    command: str, kind: type[Settings], own: set[str]
) -> None:
    (found,) = [c for c in leaves(typer.main.get_command(build_app())) if c.name == command]
    names = {option.name for option in found.params}
    layer = flags_layer(kind, dict.fromkeys(names - {"fractions"}, 1))
    tables = [value for value in layer.values() if isinstance(value, dict)]
    reached = set(layer) | {name for table in tables for name in table}
    assert names - reached == own | {"fractions", "config", "store", "as_json", "help"} & names


def test_only_what_was_given_is_in_the_layer() -> None:
    flags = {"dataset": "demo", "epochs": None, "seeds": 0, "controls": False, "out": "here"}
    assert flags_layer(CompareSettings, flags) == {
        "data": {"dataset": "demo"},
        "training": {},
        "tsds": {},
        "influence": {},
        "knn": {},
        "tuning": {},
        "seeds": 0,
        "controls": False,
    }


def test_one_seed_of_a_scoring_seeds_the_model_and_the_sampling() -> None:
    settings = settings_from(ScoreSettings, None, {"seed": 5})
    assert (settings.seed, settings.tsds.seed) == (5, 5)


def test_flags_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lipo.toml").write_text("seed = 1\n[training]\nepochs = 3\npatience = 2\n")
    settings = settings_from(FinetuneSettings, None, {"epochs": 9, "fractions": None})
    assert (settings.seed, settings.training.epochs, settings.training.patience) == (1, 9, 2)


def test_shares_are_read_and_a_split_file_chooses_its_split() -> None:
    given = {"split": "random", "fractions": "0.5,0.25,0.25"}
    assert settings_from(CompareSettings, None, given).data.fractions == (0.5, 0.25, 0.25)
    assert settings_from(CompareSettings, None, {"split_file": "s.csv"}).data.split == "column"
    with pytest.raises(SettingsError, match="--fractions"):
        settings_from(CompareSettings, None, {"split": "random", "fractions": "a lot"})


def test_a_preset_takes_its_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What belongs to the dataset of the folder belongs to no other."""
    monkeypatch.chdir(tmp_path)
    _say_once.cache_clear()
    (tmp_path / "lipo.toml").write_text(
        'seeds = 2\n[data]\ndataset = "mine.csv"\nsecondary = "theirs.csv"\n'
        'label_column = "pKa"\nsplit = "scaffold"\nfractions = [0.6, 0.2, 0.2]\n'
    )
    quick = settings_from(CompareSettings, None, {}, {"data": {"dataset": "demo"}})
    assert quick.data == DataSettings(dataset="demo")
    assert quick.seeds == 2
    line = "lipo.toml: [data] dataset, secondary, label_column, split, fractions not used"
    assert line in " ".join(capsys.readouterr().err.split())
    again = settings_from(CompareSettings, None, {}, {"data": {"dataset": "demo"}})
    assert (again, capsys.readouterr().err) == (quick, ""), "said once"
    # A preset gives way to flags, and what the file says of the same dataset then stands.
    mine = {"dataset": "mine.csv"}
    mixed = settings_from(CompareSettings, None, mine, {"data": {"dataset": "demo"}})
    assert (mixed.data.secondary, mixed.data.split) == ("theirs.csv", "scaffold")
    reference = settings_from(CompareSettings, None, {}, {"data": {"split": "reference"}})
    assert reference.data == DataSettings(
        dataset="mine.csv", secondary="theirs.csv", label_column="pKa"
    )
    (tmp_path / "lipo.toml").write_text('[data]\ndata_dir = "real"\nsecondary = "theirs.csv"\n')
    seed = settings_from(CompareSettings, None, {}, {"data": {"dataset": "lipophilicity"}})
    assert seed.data == DataSettings(dataset="lipophilicity", data_dir="real")
