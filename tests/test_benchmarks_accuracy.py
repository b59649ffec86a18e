"""The accuracy benchmark: what it keeps, what it computes from it, and how it calls chemprop."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from lipo_cli.settings import DataSettings
from tests.fixtures.bench import make_bench

# The benchmarks are scripts: they import each other by their bare names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import accuracy
from accuracy_chemprop import QUICK, Chemprop
from accuracy_table import (
    accuracy_lines,
    deviation,
    ratio_with_interval,
    rows_of,
    uncertainty_lines,
)
from kept_runs import Run, Shelf, key_of
from report import DOCS
from split_files import SplitFile, split_file

FAKE_CHEMPROP = """#!{python} -S
import csv, json, sys
from pathlib import Path

def table(path):
    with open(path) as stream:
        return list(csv.DictReader(stream))

with open({calls!r}, "a") as stream:
    stream.write(json.dumps(sys.argv[1:]) + "\\n")
code, *words = sys.argv[2:]
if not words:
    print(json.dumps({{"chemprop": "{version}", "torch": "0", "lightning": "0", "rdkit": "0"}}))
    sys.exit()
given = dict(zip(words[1::2], words[2::2]))
if words[0] == "train":
    rows = table(given["--data-path"])
    target, part = given["--target-columns"], given["--splits-column"]
    labels = [float(row[target]) for row in rows if row[part] == "train"]
    model = Path(given["--save-dir"]) / "model_0" / "best.pt"
    model.parent.mkdir(parents=True)
    model.write_text(str(sum(labels) / len(labels) + int(given["--pytorch-seed"])))
else:
    value = Path(given["--model-paths"]).read_text()
    smiles = [row["smiles"] for row in table(given["--test-path"])]
    text = "".join(f"{{each}},{{value}}\\n" for each in smiles)
    Path(given["--preds-path"]).write_text("smiles,label\\n" + text)
"""
"""A chemprop that predicts the mean of the training labels, and its seed more."""


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    folder = tmp_path / "bench"
    make_bench(folder)
    return folder


@pytest.fixture
def splits(bench: Path, tmp_path: Path) -> SplitFile:
    settings = DataSettings(dataset=str(bench / "primary.csv"), split="random")
    return split_file(settings, tmp_path / "out")


def fake_chemprop(folder: Path, version: str = "2.3.1") -> tuple[Path, Path]:
    calls, python = folder / "calls.txt", folder / "python"
    calls.touch()
    text = FAKE_CHEMPROP.format(python=sys.executable, calls=str(calls), version=version)
    python.write_text(text)
    python.chmod(0o755)
    return python, calls


def make_run(
    errors: NDArray[np.float64], *, method: str = "full", seed: int = 0, n_val: int = 30
) -> Run:
    """Returns a run with errors [n, k]; the first `n_val` rows are validation."""
    label = np.linspace(-1, 4, len(errors))
    part = np.where(np.arange(len(errors)) < n_val, "val", "test")
    rows = pd.DataFrame({"split": part, "label": label})
    return Run(method, "random", seed, 60.0 + seed, rows, label[:, None] + errors, {})


def constant(value: float, n: int = 90) -> NDArray[np.float64]:
    return np.full((n, 1), value)


def test_a_split_file_holds_every_row_and_is_found_again(splits: SplitFile, bench: Path) -> None:
    assert list(splits.frame) == ["smiles", "label", "split"]
    assert splits.frame["split"].value_counts().to_dict() == {"train": 72, "val": 9, "test": 9}
    assert len(splits.examples("train")) == 72
    settings = DataSettings(dataset=str(bench / "primary.csv"), split="random")
    again = split_file(settings, splits.path.parents[1])
    assert again.sha256() == splits.sha256()
    pd.testing.assert_frame_equal(again.frame, splits.frame)


def test_a_split_file_of_other_rows_is_refused(splits: SplitFile, bench: Path) -> None:
    settings = DataSettings(dataset=str(bench / "primary.csv"), split="random", split_seed=1)
    with pytest.raises(SystemExit, match="another split"):
        split_file(settings, splits.path.parents[1])


def test_a_limit_takes_an_equal_share_of_each_part(bench: Path, tmp_path: Path) -> None:
    settings = DataSettings(dataset=str(bench / "primary.csv"), split="random")
    limited = split_file(settings, tmp_path / "limited", limit=30)
    assert limited.frame["split"].value_counts().to_dict() == {"train": 24, "val": 3, "test": 3}


def test_a_kept_run_is_found_by_its_key_alone(splits: SplitFile) -> None:
    shelf = Shelf(splits)
    key = key_of(splits, epochs=1)
    views = np.random.default_rng(0).normal(size=(18, 3))
    assert shelf.find("full", 0, key) is None
    shelf.keep("full", 0, key, views, 12.5, epochs=1)
    found = shelf.find("full", 0, key, n_views=3)
    assert found is not None
    np.testing.assert_array_equal(found.views, views)
    assert (found.seconds, found.about["found"], found.about["epochs"]) == (12.5, True, 1)
    assert list(found.rows["split"]) == list(splits.rows("val", "test")["split"])
    assert shelf.find("full", 0, key, n_views=4) is None
    assert shelf.find("full", 0, key_of(splits, epochs=2)) is None
    assert shelf.find("full", 1, key) is None


def test_a_run_that_came_with_the_repository_is_found_too(
    splits: SplitFile, tmp_path: Path
) -> None:
    key = key_of(splits, epochs=1)
    views = np.random.default_rng(0).normal(size=(18, 1))
    own = Shelf(splits).keep("chemprop", 0, key, views, 12.5)
    stem = Shelf(splits).stem("chemprop", 0, key)
    committed = tmp_path / "committed" / splits.dataset / splits.split
    committed.mkdir(parents=True)
    for suffix in (".json", ".csv"):
        stem.with_suffix(suffix).rename(committed / stem.with_suffix(suffix).name)
    assert Shelf(splits).find("chemprop", 0, key) is None
    found = Shelf(splits, tmp_path / "committed").find("chemprop", 0, key)
    assert found is not None
    np.testing.assert_array_equal(found.views, own.views)
    pd.testing.assert_frame_equal(found.rows, own.rows)


def test_predictions_of_other_molecules_are_refused(splits: SplitFile) -> None:
    shelf = Shelf(splits)
    key = key_of(splits, epochs=1)
    shelf.keep("full", 0, key, np.zeros((18, 1)), 1.0)
    shelf.stem("full", 0, key).with_suffix(".csv").write_text("view0\n0.0\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="predictions of 18 molecules"):
        shelf.find("full", 0, key)


def test_predictions_that_are_no_numbers_are_not_kept(splits: SplitFile) -> None:
    with pytest.raises(SystemExit, match="not all finite"):
        Shelf(splits).keep("full", 0, "key", np.full((18, 1), np.nan), 1.0)


def test_means_deviations_and_the_ensemble_of_known_errors() -> None:
    runs = [make_run(constant(1.0)), make_run(constant(-0.5), seed=1)]
    (row,) = rows_of(runs, members=2, views=1)
    assert row.test_rmse == pytest.approx((1.0, 0.5))
    assert row.val_rmse == pytest.approx(0.75)
    assert row.test_mae == pytest.approx(0.75)
    assert row.seconds == 60.5
    assert row.of_ensembles("test_rmse") == pytest.approx(0.25)
    assert deviation(row.test_rmse) == pytest.approx(0.5 / 2**0.5)
    assert deviation([1.0]) is None


def test_several_smiles_are_averaged_before_the_error_is_taken() -> None:
    opposite = np.hstack([constant(1.0), constant(-1.0), constant(9.0)])
    single, averaged = rows_of([make_run(opposite)], members=1, views=2)
    assert (single.views, averaged.views) == (1, 2)
    assert single.test_rmse == pytest.approx((1.0,))
    assert averaged.test_rmse == pytest.approx((0.0,), abs=1e-12)


def test_no_model_is_in_two_ensembles() -> None:
    runs = [make_run(constant(e), seed=i) for i, e in enumerate((1.0, -1.0, 0.5, 0.5, 7.0))]
    (row,) = rows_of(runs, members=2, views=1)
    assert [numbers["test_rmse"] for numbers in row.ensembles] == pytest.approx([0.0, 0.5])
    assert row.of_ensembles("test_rmse") == pytest.approx(0.25)


def test_chemprop_has_no_row_of_several_smiles() -> None:
    runs = [make_run(constant(1.0), method="chemprop"), make_run(np.zeros((90, 2)))]
    assert [(r.method, r.views) for r in rows_of(runs, 1, 2)] == [
        ("chemprop", 1),
        ("full", 1),
        ("full", 2),
    ]


def test_a_kernel_readout_joins_each_of_our_methods_with_the_share_that_validation_likes() -> None:
    def halves(val: float, test: float) -> NDArray[np.float64]:
        return np.vstack([constant(val, 30), constant(test, 60)])

    kernel = make_run(np.hstack([halves(-1.0, -2.0)] * 2), method="kernel")
    peer = make_run(halves(0.0, 1.0), method="chemprop")
    runs = [kernel, make_run(halves(1.0, 1.0)), make_run(halves(0.3, 0.0), seed=1), peer]
    rows = {row.method: row for row in rows_of(runs, members=2, views=1)}
    assert list(rows) == ["kernel", "full", "full + kernel", "chemprop", "chemprop + kernel"]
    joined = rows["full + kernel"]
    # Validation errors +1 and -1 want a half; +0.3 and -1 a quarter; 0.65 and -1 a half.
    assert joined.test_rmse == pytest.approx((abs(0.5 - 1.0), abs(0.0 - 0.5)))
    assert joined.of_ensembles("test_rmse") == pytest.approx(abs(0.25 - 1.0))
    assert rows["chemprop + kernel"].test_rmse == rows["chemprop"].test_rmse == (1.0,)
    assert joined.seconds == 60.5 + 60.0
    assert (rows["kernel"].n_seeds, rows["kernel"].members) == (1, 1)
    assert rows["full"].test_rmse == pytest.approx((1.0, 0.0))
    averaged = rows_of(runs[:1], members=2, views=2)[1]
    assert averaged.test_rmse == pytest.approx((2.0,))


def test_smiles_weigh_as_training_wrote_them() -> None:
    views = np.hstack([constant(1.0), constant(-1.0), constant(-1.0)])
    for randomise, expected in ((0.5, 0.0), (1.0, 1 / 3), (0.2, 0.6)):
        run = make_run(views)
        run = replace(run, about={"settings": {"randomise": randomise}})
        averaged = rows_of([run], members=1, views=3)[1]
        assert averaged.test_rmse == pytest.approx((expected,), abs=1e-12)


def test_beside_the_kernel_like_is_compared_with_like() -> None:
    kernel = make_run(np.vstack([constant(9.0, 30), constant(0.0, 60)]), method="kernel")
    peer = make_run(constant(2.0), method="chemprop")
    rows = rows_of([kernel, make_run(constant(1.0)), peer], members=1, views=1)
    ratios = {
        line.split("|")[2].strip(): line.split("|")[9].strip() for line in accuracy_lines(rows)[2:]
    }
    assert ratios["lipo full"] == ratios["lipo full + kernel"] == "0.500 [0.500, 0.500]"
    assert ratios["chemprop 2"] == ratios["chemprop 2 + kernel"] == ""
    assert ratios["lipo kernel"] == "0.000 [0.000, 0.000]"


def test_seconds_that_were_measured_elsewhere_are_not_shown() -> None:
    peer = replace(make_run(constant(1.0), method="chemprop"), about={"committed": True})
    (row,) = rows_of([peer], members=1, views=1)
    assert row.seconds is None
    assert accuracy_lines([row])[-1].split("|")[8].strip() == ""


def test_committed_runs_need_no_chemprop(tmp_path: Path, splits: SplitFile) -> None:
    peer = Chemprop.committed()
    assert peer.versions["chemprop"].startswith("2.")
    with pytest.raises(SystemExit, match="came with the repository"):
        peer.run(splits, Shelf(splits), seed=0)


def test_the_ratio_of_equal_errors_is_one_and_of_half_as_large_ones_half() -> None:
    errors = np.random.default_rng(0).normal(size=(3, 400))
    assert ratio_with_interval(errors, errors) == pytest.approx((1.0, 1.0, 1.0))
    assert ratio_with_interval(errors / 2, errors) == pytest.approx((0.5, 0.5, 0.5))


def test_the_ratio_s_interval_holds_one_where_both_sides_are_alike() -> None:
    rng = np.random.default_rng(0)
    ratio, low, high = ratio_with_interval(rng.normal(size=(3, 400)), rng.normal(size=(3, 400)))
    assert low < ratio < high
    assert low < 1 < high


def test_uncertainty_is_measured_on_the_test_rows_of_the_ensemble() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 1.0, size=(800, 1))
    runs = [make_run(scale * rng.normal(size=(800, 1)), seed=i, n_val=400) for i in range(4)]
    (row,) = rows_of(runs, members=4, views=1)
    assert row.of_ensembles("test_coverage") == pytest.approx(0.9, abs=0.04)
    ratio = row.of_ensembles("test_error_ratio")
    assert ratio is not None
    assert ratio > 2
    assert "| random | 4 x lipo full | 0." in uncertainty_lines([row])[-1]


def test_the_table_compares_with_chemprop_on_the_same_split_only() -> None:
    peer = make_run(constant(2.0), method="chemprop")
    rows = rows_of([make_run(constant(1.0)), peer], members=1, views=1)
    ours, theirs = accuracy_lines(rows)[-2:]
    assert ours.split("|")[9].strip() == "0.500 [0.500, 0.500]"
    assert theirs.split("|")[9].strip() == ""
    (alone,) = accuracy_lines(rows[:1])[2:]
    assert alone.split("|")[9].strip() == ""


def test_chemprop_trains_on_the_split_file_with_its_defaults(
    splits: SplitFile, tmp_path: Path
) -> None:
    python, calls = fake_chemprop(tmp_path)
    peer = Chemprop.find(python)
    shelf = Shelf(splits)
    run = peer.run(splits, shelf, seed=3)
    mean = splits.examples("train").labels.mean()
    np.testing.assert_allclose(run.views, np.full((18, 1), mean + 3))
    _, train, predict = calls.read_text().splitlines()
    for words in ('"--accelerator", "cpu"', '"--data-seed", "3"', '"--splits-column", "split"'):
        assert words in train
    assert "--epochs" not in train
    assert '"predict"' in predict
    assert peer.run(splits, shelf, seed=3).about["found"]
    assert len(calls.read_text().splitlines()) == 3
    assert not list(shelf.stem("", 0, "").parent.glob(".chemprop-*"))


def test_an_environment_without_chemprop_2_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No such file"):
        Chemprop.find(tmp_path / "absent")
    python, _ = fake_chemprop(tmp_path, version="1.6.1")
    with pytest.raises(SystemExit, match=r"chemprop 1\.6\.1, not 2"):
        Chemprop.find(python)


def test_a_chemprop_that_fails_leaves_its_log(splits: SplitFile, tmp_path: Path) -> None:
    python, _ = fake_chemprop(tmp_path)
    peer = Chemprop.find(python)
    python.write_text(f"#!{sys.executable}\nraise SystemExit('no memory')\n")
    with pytest.raises(SystemExit, match=r"chemprop train failed.*\.log") as failure:
        peer.run(splits, Shelf(splits), seed=0)
    assert "no memory" in Path(str(failure.value).rsplit(": ", 1)[1]).read_text()


def test_more_members_than_seeds_are_refused() -> None:
    with pytest.raises(SystemExit):
        accuracy.parse(["--seeds", "2", "--ensemble", "3"])


def test_a_quick_run_writes_no_docs_unless_a_page_is_named(tmp_path: Path) -> None:
    assert accuracy.parse(["--quick"]).page is None
    assert accuracy.parse(["--dry"]).page is None
    assert accuracy.parse([]).page == DOCS


def test_the_whole_benchmark_on_a_file_of_the_users_goes_on_where_it_stopped(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python, calls = fake_chemprop(tmp_path)
    page = tmp_path / "page.md"
    command = [
        *("--quick", "--data", str(bench / "primary.csv"), "--model", str(bench / "model")),
        *("--split", "random", "--split", "scaffold", "--chemprop", str(python)),
        *("--out", str(tmp_path / "out"), "--page", str(page)),
    ]
    assert accuracy.main(command) == 0
    first = page.read_text()
    assert first.startswith("# Benchmarks\n\n<!-- accuracy-primary:begin -->")
    table = [line for line in first.splitlines() if line.startswith(("| random", "| scaffold"))]
    # The kernel alone, full, full with the kernel: 2 rows each; chemprop alone and with it.
    assert len(table) == 2 * (8 + 7)
    assert "0 of 10 runs were kept" in first
    assert f"with `{' '.join(QUICK)}`" in first
    assert '"--epochs", "3"' in calls.read_text()
    n_calls = len(calls.read_text().splitlines())
    assert accuracy.main(command) == 0
    second = page.read_text()
    assert "10 of 10 runs were kept" in second
    assert [line for line in second.splitlines() if line in table] == table
    assert len(calls.read_text().splitlines()) == n_calls + 1  # its versions
    assert "random, full, seed 1: found" in capsys.readouterr().err


def test_without_chemprop_its_rows_are_left_out_and_that_is_said(
    bench: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        *("--quick", "--data", str(bench / "primary.csv"), "--model", str(bench / "model")),
        *("--split", "random", "--seeds", "1", "--tta", "1", "--out", str(tmp_path / "out")),
    ]
    assert accuracy.main(command) == 0
    said = capsys.readouterr()
    assert "chemprop was not run" in said.out
    assert "| chemprop 2 |" not in said.out
    assert "no --chemprop" in said.err
    page = tmp_path / "page.md"
    assert accuracy.main([*command, "--section", "one-seed", "--page", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "<!-- accuracy-primary-one-seed:begin -->" in text
    assert "## Accuracy on primary: one seed" in text
