"""`lipo finetune`, from the flags to the saved regressor."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lipo_cli.chem.splits import make_split
from lipo_cli.chem.tables import read_table
from lipo_cli.commands.compare_view import CompareView
from lipo_cli.commands.model_folder import check_model_folder, copy_model_folder
from lipo_cli.comparison.plan import Choice
from lipo_cli.comparison.prepare import prepare
from lipo_cli.errors import DataError, SettingsError
from lipo_cli.main import main
from lipo_cli.model.ensemble import Ensemble, load_predictor
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from lipo_cli.valuation.selection import PointScores
from lipo_cli.valuation.selection_text import parse_selection
from lipo_cli.valuation.table import value_table, write_values
from tests.fixtures.bench import N_SECONDARY, make_bench


@pytest.fixture
def command(tmp_path: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return ["finetune", *make_bench(tmp_path / "bench"), "-p", "lora", "--store", str(store_root)]


def n_runs(root: Path) -> int:
    return len(find_runs(open_store(root), "lipo", "tags.`lipo.kind` = 'cell'"))


def test_result_is_json_is_saved_and_is_found_again(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "regressor"
    assert main([*command, "--out", str(out), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["status"], first["reused"], first["peft"]) == ("finished", False, "lora")
    assert first["n_selected"] == 0
    predicted = Regressor.load(out).predict(["CCO", "c1ccccc1"])
    assert np.isfinite(predicted).all()
    assert main([*command, "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second.pop("reused")
    first.pop("reused")
    assert second == first
    assert n_runs(store_root) == 1


def write_selection(rows: list[int], path: Path = Path("chosen.csv")) -> str:
    """Writes the secondary set with a mark at some rows, as `lipo select --out` does."""
    table = pd.read_csv("bench/secondary.csv")
    table.assign(selected=table.index.isin(rows)).to_csv(path, index=False)
    return str(path)


def test_chosen_rows_join_training_as_in_a_comparison(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    compared = [
        *("compare", *command[1:], "--secondary", "bench/secondary.csv"),
        *("-s", "random:k=6", "--no-controls", "--no-equal-steps", "--json"),
    ]
    assert main(compared) == 0
    (there,) = json.loads(capsys.readouterr().out)["cells"]
    rows = Choice("", parse_selection("random:k=6"), "asked").rows({}, N_SECONDARY, 0)
    assert main([*command, "--selection", write_selection(rows.tolist()), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert (here["selection"], here["n_selected"]) == ("chosen.csv", 6)
    for name in ("n_selected", "n_train", "val_rmse", "test_rmse", "best_epoch"):
        assert here[name] == there[name]


def test_what_select_wrote_is_trained_on_by_the_scored_labels(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The file's own columns stand beside those that were scored: merged labels, kept rows."""
    primary, secondary = Path("bench/primary.csv"), Path("bench/secondary.csv")
    for path in (primary, secondary):
        pd.read_csv(path).rename(columns={"logd": "pKa"}).to_csv(path, index=False)
    table = pd.read_csv(secondary)
    pd.concat([table, table.head(1).assign(pKa=9.0)]).to_csv(secondary, index=False)
    named = [*command, "--label-column", "pKa"]
    prepared = prepare(
        DataSettings(dataset=str(primary), secondary=str(secondary), label_column="pKa")
    )
    pool = prepared.require_pool().examples
    scores = PointScores(np.linspace(1, -1, len(pool)), np.full(len(pool), 0.1))
    best = parse_selection("tsds:top=5").select(scores, len(pool), np.random.default_rng(0))
    values = value_table(range(len(pool)), pool.smiles, pool.labels, scores, best)
    write_values(Path("values"), values)
    chosen = ["--selection", "tsds:top=5", "--secondary", str(secondary), "--out", "chosen.csv"]
    assert main(["select", "values", *chosen]) == 0
    assert main([*named, "--selection", "chosen.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_selected"] == 5
    settings = DataSettings(dataset=str(primary), label_column="pKa")
    read = prepare(settings, "chosen.csv").require_pool().examples
    assert read.smiles == pool.smiles[:5]
    assert read.labels.tolist() == pool.labels[:5].tolist()


def test_chosen_rows_are_counted_and_are_an_input_of_the_run(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_selection([3, 5, 8])
    assert main([*command, "-s", file]) == 0
    assert "trained on 67 molecules, 3 of them chosen: chosen.csv" in capsys.readouterr().out
    store = open_store(store_root)
    (cell,) = find_runs(store, "lipo", "tags.`lipo.kind` = 'cell'")
    assert cell.tags["selection"] == "chosen.csv"
    inputs = store.client().get_run(cell.run_id).inputs.dataset_inputs
    contexts = [tag.value for found in inputs for tag in found.tags]
    assert contexts.count("secondary") == 1
    assert main([*command, "-s", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"]
    assert main([*command, "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert (alone["reused"], alone["n_selected"], alone["n_train"]) == (False, 0, 64)


def test_molecules_of_validation_and_test_do_not_join(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    primary = read_table("bench/primary.csv")
    split = make_split(primary, DataSettings(dataset="bench/primary.csv"))
    stolen = [primary.smiles[split.test[0]], primary.skeletons[split.val[0]], "CCCCCCCCO"]
    pd.DataFrame({"smiles": stolen, "logd": [1.0, 1.0, 2.0]}).to_csv("chosen.csv", index=False)
    assert main([*command, "--selection", "chosen.csv", "--json"]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert (result["n_selected"], result["n_train"]) == (1, 65)
    assert "2 dropped (1 in validation, 1 in test)" in printed.err
    pd.DataFrame({"smiles": stolen[:2], "logd": [1.0, 1.0]}).to_csv("chosen.csv", index=False)
    assert main([*command, "--selection", "chosen.csv"]) == 3
    assert "0 secondary molecules are left" in capsys.readouterr().err


def test_a_single_chosen_row_is_enough(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--selection", write_selection([4]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_selected"] == 1


@pytest.mark.parametrize("selection", ["tsds", "nowhere.csv", "bench"])
def test_a_selection_that_is_no_file_is_found_before_the_data_are_read(
    command: list[str], capsys: pytest.CaptureFixture[str], selection: str
) -> None:
    assert main([*command, "--dataset", "missing.csv", "--selection", selection]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --selection: there is no file '{selection}'")


def test_molecules_with_unknown_tokens_are_counted_aloud(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    count = json.loads(printed.out)["n_unknown"]
    assert count > 0
    assert f"{count} hold tokens the model does not know" in printed.err


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_happened(
    command: list[str],
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CompareView, "epoch", interrupt)
        assert main([*command, "--json"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*command, "--json"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert n_runs(store_root) == 1
    other = [*command[:-1], str(tmp_path / "undisturbed")]
    assert main([*other, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    for name in ("val_rmse", "test_rmse", "best_epoch", "n_train"):
        assert resumed[name] == whole[name]


@pytest.mark.parametrize("under", [False, True])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: list[str],
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    under: bool,
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    out = taken / "below" if under else taken
    assert main([*command, "--out", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --out: {out} ")
    assert taken.read_text() == "precious"
    assert n_runs(store_root) == 0


def test_a_folder_of_something_else_is_left_alone_and_an_earlier_model_gives_way(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "kept"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    assert main([*command, "--out", str(out)]) == 2
    assert "something else than a fitted model" in capsys.readouterr().err
    assert n_runs(store_root) == 0
    out = tmp_path / "model"
    assert main([*command, "--out", str(out)]) == 0
    assert (out / "adapter_config.json").is_file()
    assert main([*command[:-4], "-p", "bitfit", *command[-2:], "--out", str(out)]) == 0
    assert not (out / "adapter_config.json").exists(), "two models in one folder"
    assert Regressor.load(out).peft == "bitfit"
    kept = out / "predicted.csv"
    kept.write_text("precious")
    assert main([*command, "--out", str(out)]) == 2
    assert "holds predicted.csv beside a fitted model" in capsys.readouterr().err
    assert kept.read_text() == "precious"
    with pytest.raises(SettingsError, match=r"predicted\.csv"):  # it came while the model trained
        copy_model_folder(tmp_path / "kept", out)
    kept.unlink()
    (out / ".DS_Store").write_text("of a desktop")
    check_model_folder(out)
    (out / "base" / "notes.txt").write_text("precious")
    with pytest.raises(SettingsError, match=r"base/notes\.txt beside a fitted model"):
        check_model_folder(out)


def test_the_manifest_of_another_program_is_none_of_ours(tmp_path: Path) -> None:
    for content in ('{"manifest_version": 3, "name": "app"}', "[]", "not JSON"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(SettingsError, match="something else than a fitted model"):
            check_model_folder(tmp_path)


def test_an_earlier_model_is_back_where_the_new_one_could_not_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for folder in (source, target):
        folder.mkdir()
        manifest = {"format": 1, "lipo": folder.name, "peft": "lora"}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    def refuse(self: Path, to: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(DataError, match="No space left"):
        copy_model_folder(source, target)
    assert json.loads((target / "manifest.json").read_text())["lipo"] == "target"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (["--seed", "-1"], "seed"),
        (["--split-seed", "4"], "the split 'reference' does not read split_seed"),
        (["--learning-rate", "inf"], "learning_rate"),
        (["--split", "column", "--fractions", "0.5,0.3,0.2"], "does not read fractions"),
    ],
)
def test_settings_that_make_no_sense_are_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], what: str
) -> None:
    assert main([*command, *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line


def test_a_misplaced_name_in_the_default_file_is_an_error(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("lipo.toml").write_text("epochs = 3\n")
    assert main(command) == 2
    assert "it belongs under [training]" in capsys.readouterr().err


def test_a_table_in_words_by_default(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("lora, seed 0: test RMSE ")
    assert "dataset primary.csv" in printed.err


def test_a_missing_file_is_one_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--dataset", "nowhere/x.csv"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "nowhere/x.csv" in line


def test_a_label_that_the_primary_lacks_is_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("bench/primary.csv")
    table = pd.read_csv(path)
    table.assign(other=1.5).to_csv(path, index=False)
    assert main([*command, "--label-column", "pKa"]) == 3
    assert "has no column 'pKa'" in capsys.readouterr().err


def test_ensemble_is_the_mean_of_its_seeds_and_is_found_again(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "both"
    whole = [*command, "--ensemble", "2", "--seed", "4", "--tta", "3", "--json"]
    assert main([*whole, "--out", str(out)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [member["seed"] for member in first["members"]] == [4, 5]
    ensemble = load_predictor(out)
    assert isinstance(ensemble, Ensemble)
    smiles = ["CCO", "c1ccccc1"]
    assert [member.peft for member in ensemble.members] == ["lora", "lora", "kernel"]
    each = [member.predict(smiles) for member in ensemble.members]
    expected = np.average(each, axis=0, weights=ensemble.shares)
    np.testing.assert_allclose(ensemble.predict(smiles), expected)
    assert ensemble.predict_views(smiles).shape == (2, 9)
    kept = find_runs(open_store(store_root), "lipo", "tags.`lipo.kind` = 'ensemble'")
    assert [run.run_id for run in kept] == [first["run_id"]]
    predictions = pd.read_parquet(kept[0].artifact("tables/predictions.parquet"))
    test = predictions[predictions["part"] == "test"]
    error = test["predicted"] - test["measured"]
    assert first["test_rmse"] == pytest.approx(float(np.sqrt(np.mean(error**2))))
    assert (predictions["spread"] > 0).all()
    assert main(whole) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["run_id"] == first["run_id"]
    assert [m["reused"] for m in second["members"]] == [True, True]
    assert n_runs(store_root) == 2


def test_an_ensemble_without_calibration_is_shown_all_the_same(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # Nine rows of validation calibrate nothing, whether the ensemble is new or found again.
    asked = [*command, "--ensemble", "2", "--split", "random"]
    shown = []
    for _ in range(2):
        assert main(asked) == 0
        shown.append(capsys.readouterr().out)
        assert "with the kernel readout (share 0.5): test RMSE" in shown[-1]
        assert "intervals" not in shown[-1]
    assert shown[0].splitlines()[-1] == shown[1].splitlines()[-1]
    both = []
    for seed in ("0", "0"):
        assert main([*asked, "--seed", seed, "--json"]) == 0
        both.append(json.loads(capsys.readouterr().out))
    assert both[0]["test_coverage"] is None
    assert both[0].keys() == both[1].keys()


def test_an_ensemble_without_the_kernel_is_the_plain_mean(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*command, "--ensemble", "2", "--no-kernel", "--json", "--out", str(tmp_path / "both")]
    assert main(asked) == 0
    ensemble = load_predictor(tmp_path / "both")
    assert isinstance(ensemble, Ensemble)
    assert ensemble.shares == (0.5, 0.5)
    each = [member.predict(["CCO"]) for member in ensemble.members]
    np.testing.assert_allclose(ensemble.predict(["CCO"]), np.mean(each, axis=0))


def test_a_kernel_readout_joins_is_saved_and_is_found_again(
    command: list[str], store_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*command, "--kernel", "--json"]
    assert main([*asked, "--out", str(tmp_path / "model")]) == 0
    first = json.loads(capsys.readouterr().out)
    ensemble = load_predictor(tmp_path / "model")
    assert isinstance(ensemble, Ensemble)
    assert [member.peft for member in ensemble.members] == ["lora", "kernel"]
    assert main(asked) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["run_id"] == first["run_id"]
    assert second["test_rmse"] == first["test_rmse"]
    assert main([*command, "--json"]) == 0  # the network alone is another model
    assert json.loads(capsys.readouterr().out)["test_rmse"] != first["test_rmse"]
    Path("mine.csv").write_text("smiles\nCCO\nc1ccccc1\n", encoding="utf-8")
    assert main(["predict", "mine.csv", "--model", str(tmp_path / "model"), "--json"]) == 0
    found = [row["prediction"] for row in json.loads(capsys.readouterr().out)]
    np.testing.assert_allclose(found, ensemble.predict(["CCO", "c1ccccc1"]), atol=1e-5)


def test_an_ensemble_that_is_found_has_taken_as_long_as_it_took(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The readout's seconds are those of the first run, which the members know nothing of."""
    both = []
    for _ in range(2):
        assert main([*command, "--kernel", "--json"]) == 0
        both.append(json.loads(capsys.readouterr().out))
    assert both[1]["run_id"] == both[0]["run_id"]
    assert both[1]["seconds"] == both[0]["seconds"]
    assert both[0]["seconds"] > both[0]["members"][0]["seconds"]


OTHER_SPLIT = ("--split", "random", "--split-seed", "1")


def choose_rows(bench: list[str], selection: str, out: str) -> pd.DataFrame:
    """Values the secondary set on the first split and writes what a selection takes of it."""
    if not Path("values").exists():
        scored = ["--secondary", "bench/secondary.csv", "--method", "knn", "--out", "values"]
        assert main(["score", *bench, *scored, "--reference-peft", "lora"]) == 0
    assert main(["select", "values", "--selection", selection, "--out", out]) == 0
    return pd.read_csv(out)


def test_chosen_rows_stay_on_the_split_that_chose_them(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On another split the molecules that chose them may be test molecules."""
    bench, at_store = command[1:-4], command[-2:]
    rows = choose_rows([*bench, *at_store], "knn:top=6", "chosen.csv")
    scope = prepare(DataSettings(dataset="bench/primary.csv")).scope()
    assert set(rows["chosen_on"]) == {scope}
    rows[rows["selected"]].to_csv("taken.csv", index=False)
    capsys.readouterr()
    finetuned = [*command, "--selection", "chosen.csv", "--json"]
    compared = [
        *("compare", *bench, *at_store, "-p", "lora", "--secondary", "taken.csv"),
        *("-s", "random:k=4", "--no-controls", "--json"),
    ]
    for asked, file in ((finetuned, "chosen.csv"), (compared, "taken.csv")):
        assert main([*asked, *OTHER_SPLIT]) == 3
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert line.startswith(f"error: {file}: these rows were chosen on another primary set")
        assert printed.out == ""
    # The rows that were left are there, too: a pool, of which nothing was chosen.
    assert main([*compared[:-5], "chosen.csv", *compared[-4:], *OTHER_SPLIT]) == 0
    capsys.readouterr()
    # The same molecules with another label chose by other errors.
    changed = pd.read_csv("bench/primary.csv")
    changed.loc[0, "logd"] += 1
    changed.to_csv("primary.csv", index=False)
    assert main([*finetuned, "--dataset", "primary.csv"]) == 3
    assert capsys.readouterr().err.startswith("error: chosen.csv: these rows were chosen on")
    # On their own split they are trained on.
    assert main(finetuned) == 0
    assert json.loads(capsys.readouterr().out)["n_selected"] == 6
    assert main(compared) == 0
    (cell,) = json.loads(capsys.readouterr().out)["cells"]
    assert (cell["status"], cell["n_selected"]) == ("finished", 4)


def test_choosing_from_chosen_rows_forgets_nothing(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    choose_rows([*command[1:-4], *command[-2:]], "knn:top=6", "chosen.csv")
    capsys.readouterr()
    assert main(["select", "chosen.csv", "--selection", "knn:top=3", "--out", "again.csv"]) == 0
    assert "nothing here says on which split" not in capsys.readouterr().err
    assert main([*command, "--selection", "again.csv", *OTHER_SPLIT]) == 3
    assert capsys.readouterr().err.startswith("error: again.csv: these rows were chosen on")
    # A table away from its folder, sent by mail for instance: that nothing is known is said.
    shutil.copy("values/values.csv", "sent.csv")
    assert main(["select", "sent.csv", "--selection", "knn:top=3", "--out", "own.csv"]) == 0
    assert "nothing here says on which split" in capsys.readouterr().err
    assert "chosen_on" not in pd.read_csv("own.csv").columns


def test_rows_that_no_molecule_chose_go_to_every_split(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = choose_rows([*command[1:-4], *command[-2:]], "random:k=5", "random.csv")
    assert "chosen_on" not in rows.columns
    assert rows["selected"].sum() == 5
    capsys.readouterr()
    assert main([*command, "--selection", "random.csv", *OTHER_SPLIT, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_selected"] in range(1, 6)


def test_a_column_of_that_name_that_says_something_else_is_left_alone(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv("bench/secondary.csv").head(6)
    rows.assign(chosen_on="2026-01-02", selected=True).to_csv("own.csv", index=False)
    assert main([*command, "--selection", "own.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_selected"] in range(1, 7)
