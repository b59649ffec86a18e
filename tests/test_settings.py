"""Settings refuse what would be ignored, and numbers that make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lipo_cli.commands.layers import file_layer
from lipo_cli.errors import SettingsError
from lipo_cli.presets import read_preset
from lipo_cli.settings import (
    CompareSettings,
    DataSettings,
    FinetuneSettings,
    ScoreSettings,
    Settings,
    TrainingSettings,
    TsdsSettings,
    build,
    read_settings_file,
)

OTHER_SHARES = (0.6, 0.2, 0.2)


@pytest.mark.parametrize(
    ("split", "given"),
    [
        ("reference", {"fractions": OTHER_SHARES}),
        ("reference", {"split_seed": 1}),
        ("reference", {"split_file": "s.csv"}),
        ("reference", {"keep_stereo_groups": False}),
        ("scaffold", {"split_seed": 1}),
        ("scaffold", {"keep_stereo_groups": False}),
        ("column", {"fractions": OTHER_SHARES}),
        ("column", {"split_seed": 1}),
        ("random", {"split_file": "s.csv"}),
        ("scaffold_balanced", {"split_file": "s.csv"}),
    ],
)
def test_a_setting_that_the_split_does_not_read_is_refused(
    split: str, given: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as raised:
        build(CompareSettings, {"data": {"split": split, **given}})
    (name,) = given
    line = str(raised.value)
    assert line.startswith(f"data: the split '{split}' does not read {name}: only ")
    assert "\n" not in line
    assert len(line) < 160


@pytest.mark.parametrize(
    "given",
    [
        {"split": "random", "fractions": OTHER_SHARES, "split_seed": 3},
        {"split": "random", "keep_stereo_groups": False},
        {"split": "scaffold", "fractions": OTHER_SHARES},
        {"split": "scaffold_balanced", "fractions": OTHER_SHARES, "split_seed": 3},
        {"split": "column", "split_file": "s.csv"},
        {"data_dir": "here"},
    ],
)
def test_a_setting_that_is_read_is_kept_and_comes_back_from_its_file(
    given: dict[str, Any], tmp_path: Path
) -> None:
    settings = build(CompareSettings, {"data": given})
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings.model_dump(mode="json")))
    assert build(CompareSettings, read_settings_file(path)) == settings


@pytest.mark.parametrize("dataset", ["demo", "mine.csv"])
def test_a_data_folder_for_a_set_that_is_not_in_it_is_refused(dataset: str) -> None:
    with pytest.raises(SettingsError, match=f"'{dataset}' is not read from data_dir"):
        build(DataSettings, {"dataset": dataset, "data_dir": "here"})


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (DataSettings, {"split": "random", "split_seed": -1}),
        (TsdsSettings, {"seed": -1}),
        (FinetuneSettings, {"seed": -1}),
        (FinetuneSettings, {"seed": 2**32}),
        (ScoreSettings, {"seed": -1}),
        (CompareSettings, {"first_seed": -1}),
        (CompareSettings, {"model_name": "it's"}),
        (CompareSettings, {"model_name": 'a "name"'}),
        (CompareSettings, {"model_name": "a/b"}),
        (CompareSettings, {"model_name": " "}),
        (DataSettings, {"split": "random", "fractions": (float("nan"), 0.5, 0.5)}),
        (DataSettings, {"split": "random", "fractions": (float("inf"), 0.5, 0.5)}),
        (TrainingSettings, {"learning_rate": float("inf")}),
        (TrainingSettings, {"min_delta": float("nan")}),
        (TsdsSettings, {"relative_error": float("inf")}),
        (TsdsSettings, {"ridge": float("nan")}),
        (TsdsSettings, {"subset_fraction": (0.0, 0.5)}),
        (TsdsSettings, {"subset_fraction": (0.5, 0.25)}),
        (TsdsSettings, {"subset_fraction": (0.5, 1.5)}),
        (TsdsSettings, {"subset_fraction": (float("nan"), 0.5)}),
        (TsdsSettings, {"min_permutations": 40, "max_permutations": 20}),
    ],
)
def test_numbers_that_make_no_sense(kind: type[Settings], given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as raised:
        build(kind, given)
    assert "\n" not in str(raised.value)


def test_a_misspelt_item_of_a_list_is_said_under_the_name_of_its_option() -> None:
    with pytest.raises(SettingsError) as raised:
        build(CompareSettings, {"peft": ["lora", "lorra"]})
    text = str(raised.value)
    assert text.startswith("peft: ")
    assert "given: 'lorra'" in text


# lipo.toml of the working directory.


def test_default_file_serves_several_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_layer(None, FinetuneSettings) == {}
    content = 'selections = ["none"]\npeft = "lora"\n[training]\nepochs = 3\n[tsds]\nfolds = 4\n'
    Path("lipo.toml").write_text(content)
    assert file_layer(None, FinetuneSettings) == {"peft": "lora", "training": {"epochs": 3}}
    assert file_layer(None, ScoreSettings) == {"training": {"epochs": 3}, "tsds": {"folds": 4}}


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("epochs = 3", "it belongs under [training]"),
        ("model = 'small'", "it belongs under [training]"),
        ("split = 'random'", "it belongs under [data]"),
        ("folds = 4", "it belongs under [tsds]"),
        ("epoch = 3", "see --help"),
    ],
)
def test_a_misplaced_name_in_the_default_file_is_refused(
    line: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lipo.toml").write_text(line + "\n")
    for kind in (CompareSettings, FinetuneSettings, ScoreSettings):
        with pytest.raises(SettingsError) as raised:
            file_layer(None, kind)
        assert str(raised.value) == f"lipo.toml: no command knows '{line.split()[0]}' ({advice})"


def test_a_comparison_takes_equal_steps_and_a_training_all_rows() -> None:
    assert CompareSettings().training.equal_steps
    assert not FinetuneSettings().training.equal_steps
    seed = build(CompareSettings, read_preset("seed").layer)
    assert not seed.training.equal_steps  # the published tables by their own recipe
