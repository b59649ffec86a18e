"""`lipo score`, from the flags to the value table."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lipo_cli.commands.score import _write_out
from lipo_cli.comparison.prepare import prepare
from lipo_cli.comparison.targets import target_of
from lipo_cli.comparison.uncertain import spread_values
from lipo_cli.main import main
from lipo_cli.model.kernel import KernelReadout
from lipo_cli.model.regressor import Regressor
from lipo_cli.settings import DataSettings, InfluenceSettings, TrainingSettings, build
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.store import open_store
from lipo_cli.valuation.table import VALUE_FILES, read_curve, read_values
from tests.fixtures.bench import N_SECONDARY, make_bench


@pytest.fixture
def command(tmp_path: Path, store_root: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [
        *("score", *make_bench(tmp_path / "bench"), "--secondary", "bench/secondary.csv"),
        *("--reference-peft", "lora", "--components", "8"),
        *("--store", str(store_root)),
    ]


def score_runs(root: Path) -> int:
    return len(find_runs(open_store(root), "lipo", "tags.`lipo.kind` = 'score'"))


def read_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_values_are_json_are_written_and_are_found_again(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "values"
    assert main([*command, "--out", str(out), "--json"]) == 0
    first = read_json(capsys)
    assert (first["dataset"], first["split"]) == ("primary.csv", "reference")
    assert first["scope"].startswith("primary.csv:")
    assert (first["method"], first["game"]) == ("tsds", "secondary")
    assert first["reason"]
    assert isinstance(first["converged"], bool)
    assert isinstance(first["n_optimal"], int)
    assert sum(point["selected"] for point in first["values"]) == first["n_optimal"]
    assert sorted(point["rank"] for point in first["values"]) == list(range(1, N_SECONDARY + 1))
    table = read_values(out)
    assert table["value"].tolist() == [point["value"] for point in first["values"]]
    assert len(read_curve(out)) > 0
    assert main([*command, "--json"]) == 0
    assert read_json(capsys) == first
    assert score_runs(store_root) == 1


def test_a_comparison_uses_the_scores_and_the_model_that_score_left(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    at = command.index("--components")
    del command[at : at + 2]
    assert main([*command, "--json"]) == 0
    scored = read_json(capsys)
    at = command.index("--reference-peft")
    compare = ["compare", *command[1:at], *command[at + 2 :]]
    asked = ["--selection", "tsds:top=5", "--peft", "lora", "--json", "--out", "result"]
    assert main([*compare, *asked]) == 0
    compared = read_json(capsys)
    runs = find_runs(open_store(store_root), "lipo-compare")
    assert not [run for run in runs if run.tags["lipo.kind"] == "score"]
    control = next(cell for cell in compared["cells"] if cell["selection"] == "none")
    assert control["run_id"] not in [run.run_id for run in runs]
    chosen = pd.read_csv(tmp_path / "result" / "values" / "tsds" / "values.csv")
    assert chosen["value"].tolist() == [point["value"] for point in scored["values"]]
    # The report is made from MLflow alone, and finds the runs wherever they are.
    assert main(["report", "--store", str(store_root), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").stat().st_size > 10_000


def test_the_game_is_named_and_is_scored_apart(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, "--json"]) == 0
    assert main([*command, "--game", "empty", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["game"] for line in lines] == ["secondary", "empty"]
    assert score_runs(store_root) == 2


def test_both_ends_are_shown(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--show", "2"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("highest values\n")
    assert "lowest values\n" in printed.out
    assert "split reference:" in printed.err
    assert "labels:" not in printed.err


def test_labels_of_two_names_are_announced(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("bench/secondary.csv")
    pd.read_csv(path).rename(columns={"logd": "Label"}).to_csv(path, index=False)
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr().err
    assert "labels: column logd of primary.csv, column Label of secondary.csv" in said
    assert main([*command, "--label-column", "logd"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "secondary.csv: has no column 'logd'" in line
    assert "rename" in line


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = Path("taken")
    taken.write_text("precious")
    for out in (taken, taken / "below"):
        assert main([*command, "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: --out: {out} ")
    assert score_runs(store_root) == 0


def test_without_a_secondary_set_nothing_is_trained(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = command.index("--secondary")
    assert main(command[:at] + command[at + 2 :]) == 3
    assert "give one: --secondary FILE" in capsys.readouterr().err
    assert find_runs(open_store(store_root), "lipo", "") == []


@pytest.mark.parametrize("flags", [["--seed", "-1"], ["--relative-error", "nan"], ["--show", "-1"]])
def test_numbers_that_make_no_sense(
    command: list[str], capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert main([*command, *flags]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("influence", ["--solver", "lissa", "--damping", "0.1"], "residual"),
        ("influence", ["--parameters", "head"], "n_parameters"),
        pytest.param(
            "influence",
            ["--solver", "ekfac", "--damping", "0.1"],
            "n_curvature",
            marks=pytest.mark.skipif(
                find_spec("kronfluence") is None,
                reason="kronfluence is not installed (lipo[ekfac])",
            ),
        ),
        ("knn", ["--neighbours", "3"], "neighbours"),
        ("loo", [], "proxy_val_rmse_all"),
        ("uncertain", [], "value_spread"),
    ],
)
def test_every_method_scores_selects_and_is_found_again(
    command: list[str],
    method: str,
    more: list[str],
    said: str,
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    asked = [*command, "--method", method, *more, "--json"]
    assert main([*asked, "--out", str(tmp_path / "values")]) == 0
    first = read_json(capsys)
    assert first["method"] == method
    assert first[said] > 0
    assert all(point["standard_error"] > 0 for point in first["values"])
    assert main(asked) == 0
    assert read_json(capsys) == first
    assert score_runs(store_root) == 1
    assert main(["select", str(tmp_path / "values"), "-s", f"{method}:top=3", "--json"]) == 0
    drawn = {path.stem for path in (tmp_path / "values").glob("*.png")}
    assert drawn >= {"values", "removal_curve", "diagnostics", "molecules"}
    assert ("residuals" in drawn) == ("lissa" in more)
    highest = [point["row"] for point in first["values"] if point["rank"] <= 3]
    assert sorted(read_json(capsys)["rows"]) == sorted(highest)
    assert main(["select", str(tmp_path / "values"), "-s", "tsds:top=3"]) == 2
    assert f"write {method}:top=3" in capsys.readouterr().err


def test_without_kronfluence_ekfac_is_one_line_before_anything_is_trained(
    command: list[str],
    store_root: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lipo_cli.valuation.ekfac.find_spec", lambda _: None)
    assert main([*command, "-m", "influence", "--solver", "ekfac"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'lipo[ekfac]'" in error
    assert "Traceback" not in error
    assert score_runs(store_root) == 0


def test_a_table_without_room_for_exact_algebra_is_one_line(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*command, "-m", "influence", "--solver", "exact", "--table-gib", "1e-9"]
    assert main(asked) == 6
    assert "--solver lissa or cg" in capsys.readouterr().err


def validation_rows(primary: Path) -> list[int]:
    """Returns data rows of the file that the reference split puts into validation."""
    prepared = prepare(build(DataSettings, {"dataset": str(primary)}))
    frame = prepared.dataset.primary.frame
    return [int(row) for row in frame["row"].iloc[prepared.split.part("val")]]


def validation_rows_skipping(primary: Path) -> list[int]:
    """Returns the same of a file with unusable rows."""
    prepared = prepare(build(DataSettings, {"dataset": str(primary), "on_invalid": "skip"}))
    frame = prepared.dataset.primary.frame
    return [int(row) for row in frame["row"].iloc[prepared.split.part("val")]]


def test_named_target_rows_have_a_column_of_values_each(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = validation_rows(tmp_path / "bench" / "primary.csv")
    out = tmp_path / "values"
    named = ["-m", "influence", "--parameters", "head", "--target-rows"]
    asked = [*command, *named, ",".join(map(str, rows[:3])), "--json", "--out", str(out)]
    assert main(asked) == 0
    first = read_json(capsys)
    columns = [f"target_{row}" for row in rows[:3]]
    by_target = pd.DataFrame(first["by_target"])
    assert list(by_target) == ["row", "smiles", "label", *columns]
    values = [point["value"] for point in first["values"]]
    np.testing.assert_allclose(by_target[columns].mean(axis=1), values, rtol=1e-9)
    written = pd.read_csv(out / "by_target.csv")
    np.testing.assert_allclose(written[columns], by_target[columns], rtol=1e-12)
    assert main(asked) == 0
    assert read_json(capsys) == first
    # All rows of the split are its default.
    assert main([*command, *named, ",".join(map(str, rows)), "--json"]) == 0
    of_all = read_json(capsys)["values"]
    assert main([*command, *named[:-1], "--json"]) == 0
    default = read_json(capsys)["values"]
    for name in ("value", "standard_error"):
        np.testing.assert_allclose(
            [point[name] for point in of_all], [point[name] for point in default], rtol=1e-6
        )


def test_target_rows_outside_the_target_split_are_refused(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = validation_rows(tmp_path / "bench" / "primary.csv")
    train = next(row for row in range(90) if row not in rows)
    asked = [*command, "-m", "influence", "--parameters", "head", "--target-rows"]
    assert main([*asked, f"{rows[0]},{train}"]) == 3
    assert f"data row {train} is not in the validation split" in capsys.readouterr().err
    for text, said in (("1,x", "is no list of data rows"), ("4,4", "2 or more different rows")):
        assert main([*asked, text]) == 2
        assert said in capsys.readouterr().err


def test_values_for_the_test_split_are_marked_wherever_they_go(
    command: list[str], store_root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "values"
    asked = [*command, "-m", "influence", "--parameters", "head", "--json"]
    assert main([*asked, "--target", "test", "--out", str(out)]) == 0
    leaking = read_json(capsys)
    assert "LEAKING" in leaking["reason"]
    (run,) = find_runs(open_store(store_root), "lipo", "tags.`lipo.kind` = 'score'")
    assert "test split" in run.tags["leaking"]
    assert main(["select", str(out), "-s", "influence:top=3", "--json"]) == 0
    assert "LEAKING" in capsys.readouterr().err
    assert main(asked) == 0
    honest = read_json(capsys)
    assert "LEAKING" not in honest["reason"]
    assert [p["value"] for p in honest["values"]] != [p["value"] for p in leaking["values"]]


def test_rows_of_another_file_are_not_found_again(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The same molecules one line further down: the same numbers name others."""
    primary = tmp_path / "bench" / "primary.csv"
    rows = validation_rows(primary)
    text = primary.read_text(encoding="utf-8")
    header, rest = text.split("\n", 1)
    invalid = ",".join(
        "not a molecule" if "smiles" in c.lower() else "1" for c in header.split(",")
    )
    named = ["-m", "influence", "--parameters", "head", "--on-invalid", "skip", "--json"]
    asked = [*command, *named, "--target-rows", f"{rows[0]},{rows[1]}"]
    assert main(asked) == 0
    first = read_json(capsys)["by_target"]
    primary.write_text(f"{header}\n{invalid}\n{rest}", encoding="utf-8")
    shifted = validation_rows_skipping(primary)
    assert shifted == [row + 1 for row in rows]
    code = main(asked)
    assert code == (0 if {rows[0], rows[1]} <= set(shifted) else 3)
    capsys.readouterr()
    assert main([*asked[:-1], f"{rows[0] + 1},{rows[1] + 1}"]) == 0
    again = read_json(capsys)["by_target"]
    old, new = f"target_{rows[0]}", f"target_{rows[0] + 1}"
    assert [point[new] for point in again] == pytest.approx([point[old] for point in first])


def test_few_target_rows_leave_the_choice_to_the_others(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    primary = tmp_path / "bench" / "primary.csv"
    prepared = prepare(build(DataSettings, {"dataset": str(primary)}))
    named = tuple(validation_rows(primary)[:3])
    few = target_of(prepared, InfluenceSettings(target_rows=named))
    assert few.apart
    assert not set(few.judged) & set(few.within)
    assert len(few.judged) + 3 == len(prepared.validation)
    every = target_of(prepared, InfluenceSettings(target_rows=tuple(validation_rows(primary))))
    assert not every.apart
    backwards = validation_rows(primary)[::-1]
    turned = target_of(prepared, InfluenceSettings(target_rows=tuple(backwards)))
    game = SimpleNamespace(fold_of=np.arange(len(prepared.validation)) % 5, n_folds=5)
    np.testing.assert_array_equal(turned.fold_of(game), every.fold_of(game)[::-1])
    assert turned.examples.smiles == every.examples.smiles[::-1]
    test = target_of(prepared, InfluenceSettings(target="test"))
    assert test.apart
    assert len(test.judged) == len(prepared.validation)


def test_leaking_choices_are_marked_and_refused(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, chosen = tmp_path / "values", tmp_path / "chosen.csv"
    asked = [*command, "-m", "influence", "--parameters", "head", "--target", "test", "--json"]
    assert main([*asked, "--out", str(out)]) == 0
    assert read_json(capsys)["leaks"] is True
    alone = tmp_path / "alone.csv"
    alone.write_bytes((out / "values.csv").read_bytes())
    for values in (out, alone):
        assert main(["select", str(values), "-s", "influence:top=5", "--json"]) == 0
        printed = capsys.readouterr()
        assert json.loads(printed.out)["leaks"] is True
        assert "LEAKING" in printed.err
    assert main(["select", str(out), "-s", "influence:top=5", "--out", str(chosen)]) == 0
    assert pd.read_csv(chosen)["reason"].str.startswith("LEAKING").all()
    bench = command[1 : command.index("--secondary")]
    store = command[command.index("--store") :]
    marked = pd.read_csv(out / "values.csv")
    marked["selected"] |= marked["rank"] <= 3  # whatever the removal curve kept, some are
    marked.to_csv(out / "values.csv", index=False)
    for file in (chosen, out / "values.csv"):
        capsys.readouterr()
        assert main(["finetune", *bench, *store, "--selection", str(file)]) == 3
        assert "chosen by the test split" in capsys.readouterr().err


def test_a_second_scoring_leaves_nothing_of_the_first_in_its_folder(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = validation_rows(tmp_path / "bench" / "primary.csv")
    out = ["--out", str(tmp_path / "mix")]
    named = ["-m", "influence", "--parameters", "head", "--target-rows", f"{rows[0]},{rows[1]}"]
    assert main([*command, *named, "--solver", "lissa", "--damping", "0.1", *out]) == 0
    assert {"by_target.csv", "residuals.png"} <= {
        path.name for path in (tmp_path / "mix").iterdir()
    }
    assert main([*command, "-m", "knn", *out]) == 0
    left = {path.name for path in (tmp_path / "mix").iterdir()}
    assert not {"by_target.csv", "residuals.png"} & left
    assert "values.png" in left


def test_how_unsure_a_model_is_is_no_value(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "values"
    assert main([*command, "-m", "uncertain", "--out", str(out), "--json"]) == 0
    found = read_json(capsys)
    assert found["n_optimal"] is None
    assert not any(point["selected"] for point in found["values"])
    assert all("no choice" in point["reason"] for point in found["values"])
    assert main([*command, "-m", "uncertain", "--json"]) == 0
    assert read_json(capsys) == found
    assert main([*command, "-m", "uncertain"]) == 0
    assert "keeping" not in capsys.readouterr().out
    assert main(["select", str(out), "-s", "tsds"]) == 2
    assert "write uncertain:top=K" in capsys.readouterr().err


def test_the_spread_is_that_of_two_predictors(command: list[str], tmp_path: Path) -> None:
    bench = tmp_path / "bench"
    data = {"dataset": str(bench / "primary.csv"), "secondary": str(bench / "secondary.csv")}
    prepared = prepare(build(DataSettings, data))
    training = build(TrainingSettings, {"model": str(bench / "model"), "precision": "float32"})
    regressor = Regressor.from_base("full", training, 0)
    found = spread_values(regressor, prepared, training, n_folds=5)
    pool = prepared.require_pool().examples
    views = regressor.predict_views(pool.smiles, views=8)
    readout = KernelReadout.fit(training, prepared.train.smiles, prepared.train.labels)
    other = readout.predict(pool.smiles)
    w = np.array([0.5, *[0.5 / 7] * 7]) / 2
    mean = views @ w + other / 2
    variance = (views - mean[:, None]) ** 2 @ w + (other - mean) ** 2 / 2
    expected = np.sqrt(variance / (1 - np.sum(w**2) - 0.25))
    np.testing.assert_allclose(found.values, expected, rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, expected / np.sqrt(2), rtol=1e-6)


def test_a_comparison_cannot_choose_by_the_test_split(
    command: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('[influence]\ntarget = "test"\n', encoding="utf-8")
    asked = ["compare", "--config", "mine.toml", "--dataset", "bench/primary.csv"]
    assert main([*asked, "--secondary", "bench/secondary.csv"]) == 2
    assert "cannot choose by the split it reports on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "flag", "value", "owner"),
    [
        ("knn", "--damping", "0.1", "influence"),
        ("tsds", "--parameters", "head", "influence"),
        ("influence", "--neighbours", "3", "knn"),
        ("loo", "--relative-error", "0.2", "tsds"),
    ],
)
def test_a_flag_that_the_method_does_not_read_is_refused(
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    method: str,
    flag: str,
    value: str,
    owner: str,
) -> None:
    assert main([*command, "-m", method, flag, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{flag}: the method '{method}' does not read it" in line
    assert f"--method {owner}" in line


def test_a_scoring_that_is_stopped_leaves_no_values_beside_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*VALUE_FILES, "by_target.csv", "values.png"):
        (tmp_path / name).write_text("of an earlier scoring")
    (tmp_path / "source.json").write_text('{"method": "tsds"}')
    table = SimpleNamespace(
        path=Path("pool.csv"), sha256="0", smiles_column="smiles", label_column="y"
    )
    prepared = SimpleNamespace(
        require_pool=lambda: SimpleNamespace(table=table), scope=lambda: "mine"
    )
    scored = SimpleNamespace(
        method="knn", leaks=True, table=None, curve=None, reason="exact", sentence=""
    )

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lipo_cli.valuation.table.write_values", stopped)
    with pytest.raises(KeyboardInterrupt):
        _write_out(scored, prepared, tmp_path)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["source.json"]
    assert json.loads((tmp_path / "source.json").read_text())["leaks"] is True
    assert main(["select", str(tmp_path), "-s", "knn:top=1"]) == 3
    assert "values.parquet" in capsys.readouterr().err
