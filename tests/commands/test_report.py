"""`lipo report`: the page of a comparison, made again from its run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from lipo_cli.chem import demo
from lipo_cli.commands.compare_command import WITH_FILE, command_of
from lipo_cli.errors import SettingsError
from lipo_cli.main import build_app, main
from lipo_cli.settings import CompareSettings, build
from lipo_cli.tracking.comparisons import comparison_files, find_comparison
from lipo_cli.tracking.environment import environment
from lipo_cli.tracking.runs import FINGERPRINT_TAG, KIND_TAG, find_runs, start_run
from lipo_cli.tracking.store import Store, open_store
from tests.fixtures.models import tiny_checkpoint
from tests.fixtures.pages import parse, rows

DEMO = Path(demo.__path__[0])


class Made:
    """A comparison of a tiny model, and where it left its files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.out = folder, folder / "mlruns", folder / "out"
        for name, n in (("primary", 90), ("secondary", 24)):
            pd.read_csv(DEMO / f"{name}.csv").head(n).to_csv(folder / f"{name}.csv", index=False)
        model = tiny_checkpoint(folder / "model")
        flags = [
            "--dataset", str(folder / "primary.csv"), "--secondary", str(folder / "secondary.csv"),
            "--model", str(model), "--epochs", "1", "--device", "cpu", "--precision", "float32",
            "-s", "tsds:top=6", "-s", "knn:top=6", "-p", "lora", "--seeds", "2",
            "--store", str(self.root), "--out", str(self.out),
        ]  # fmt: skip
        assert main(["compare", *flags]) == 0
        self.page = (self.out / "report.html").read_bytes()
        self.result: dict[str, Any] = json.loads((self.out / "result.json").read_text())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "LIPO_STORE"):
            patch.delenv(name, raising=False)
        return Made(tmp_path_factory.mktemp("made"))


def test_rebuilt_it_is_the_same_to_the_byte(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    by_name, newest = tmp_path / "named.html", tmp_path / "newest.html"
    run = made.result["run_id"]
    store = ["--store", str(made.root)]
    assert main(["report", run, "--out", str(by_name), *store]) == 0
    assert capsys.readouterr().out == f"{by_name}\n"
    assert main(["report", "-o", str(newest), *store, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["run_id"] == run
    assert by_name.read_bytes() == newest.read_bytes() == made.page
    assert find_comparison(open_store(made.root)).artifact("report.html").read_bytes() == made.page


def test_it_shows_what_the_comparison_found(made: Made) -> None:
    page = parse(made.page.decode())
    tables = {table.one("caption").id: table for table in page.all("table")}
    found = {(r[0], r[1].lower()): r for r in rows(tables["table-summary"])}
    for row in made.result["summary"]:
        shown = found[row["selection"], row["peft"]]
        digits = len(shown[5].partition(".")[2])
        assert shown[5] == f"{row['val_rmse']:.{digits}f}"
        assert shown[6].startswith(
            f"{row['test_rmse']:.{digits}f} ± {row['test_rmse_sd']:.{digits}f}"
        )
    assert len(rows(tables["table-cells"])) == len(made.result["cells"]) == 10
    assert page.all("pre")[0].text == (
        "lipo compare --selection tsds:top=6 --selection knn:top=6 --peft lora --seeds 2 "
        "--dataset primary.csv --secondary secondary.csv --model model --epochs 1 "
        "--precision float32 --device cpu"
    )
    assert str(made.folder) not in made.page.decode()


def test_a_run_without_a_name_goes_to_a_file_that_bears_it(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--store", str(made.root)]) == 0
    (written,) = tmp_path.iterdir()
    assert written.name == f"lipo-report-{made.result['run_id'][:8]}.html"


def fails(
    arguments: list[str], exit_code: int, capsys: pytest.CaptureFixture[str], made: Made
) -> str:
    assert main(["report", *arguments, "--store", str(made.root)]) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_run_that_has_no_report_is_one_line(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "not found" in fails(["0" * 32], 7, capsys, made)
    cell = made.result["cells"][0]["run_id"]
    assert "is no comparison but a cell" in fails([cell], 7, capsys, made)
    assert "is a folder" in fails(["--out", str(tmp_path)], 2, capsys, made)
    assert main(["report", "--store", str(tmp_path / "nowhere")]) == 7
    assert "there is no store here yet" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_comparison_that_has_not_ended_well_is_one_line(store: Store) -> None:
    tags = {KIND_TAG: "comparison", FINGERPRINT_TAG: "f"}
    with pytest.raises(Exception, match="there is no finished comparison here"):
        find_comparison(store)
    with pytest.raises(KeyboardInterrupt), start_run(store, "lipo", "x", tags=tags):
        raise KeyboardInterrupt
    (run,) = find_runs(store, "lipo")
    with pytest.raises(Exception, match="the run is KILLED"):
        find_comparison(store, run.run_id)
    with pytest.raises(Exception, match="there is no finished comparison here"):
        find_comparison(store)


def test_of_several_the_one_that_ended_last_is_the_newest(store: Store) -> None:
    ids = []
    for experiment in ("one", "two"):
        with start_run(store, experiment, "x", tags={KIND_TAG: "comparison"}) as run:
            ids.append(run.run_id)
    with start_run(store, "one", "a cell", tags={KIND_TAG: "cell"}):
        pass
    assert find_comparison(store).run_id == ids[1]
    with start_run(store, "one", "x", run_id=ids[0]):
        pass
    assert find_comparison(store).run_id == ids[0]


def test_an_artifact_that_was_deleted_is_one_line(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = find_comparison(open_store(made.root)).artifact("result/values/knn/values.csv")
    content = gone.read_bytes()
    gone.unlink()
    try:
        line = fails(["-o", str(tmp_path / "x.html")], 7, capsys, made)
    finally:
        gone.write_bytes(content)
    assert "the run has no file result/values/knn/values.csv" in line
    assert not list(tmp_path.iterdir())


def test_a_list_of_files_leads_nowhere_else(made: Made, tmp_path: Path) -> None:
    run = find_comparison(open_store(made.root))
    manifest = run.artifact("artifacts.json")
    content = manifest.read_bytes()
    manifest.write_text(json.dumps({"result/../../artifacts.json": 1, "../x": 1, "other/y": 1}))
    try:
        comparison_files(run, tmp_path)
    finally:
        manifest.write_bytes(content)
    assert not list(tmp_path.iterdir())


CHANGES: list[dict[str, Any]] = [
    {"training": {"equal_steps": False}},
    {},
    {"selections": ["tsds:top=9", "knn"], "peft": ["lora", "ia3"], "seeds": 3, "controls": False},
    {"data": {"dataset": "my set.csv", "split": "random", "fractions": (0.7, 0.2, 0.1),
              "keep_stereo_groups": False, "split_seed": 4, "on_invalid": "skip"}},
    {"training": {"model": "other", "epochs": 3, "learning_rate": 1e-4, "lora_rank": 16}},
    {"models": ["small", "other"]},
    {"training": {"model": "a"}, "models": ["a", "b"], "peft": ["full"]},
]  # fmt: skip


@pytest.mark.parametrize("changes", CHANGES)
def test_the_command_gives_the_settings_back(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Parsed by Typer and built by the command itself, up to where it plans."""
    monkeypatch.chdir(tmp_path)
    settings = build(CompareSettings, changes)
    settings = settings.model_copy(update={"reference_peft": settings.peft[0]})
    caught: list[CompareSettings] = []

    def catch(given: CompareSettings) -> None:
        caught.append(given)
        raise SettingsError("enough")

    monkeypatch.setattr("lipo_cli.comparison.plan.make_plan", catch)
    words = shlex.split(command_of(settings))
    assert words[0] == "lipo"
    with pytest.raises(SettingsError, match="enough"):
        typer.main.get_command(build_app()).main(words[1:], prog_name="lipo")
    (given,) = caught
    # What the first of several models is, is that of training too.
    models = {"training": settings.training.model_copy(update={"model": given.training.model})}
    expected = settings.model_copy(update=models if settings.models else {})
    assert given.model_copy(update={"reference_peft": given.peft[0]}) == expected


@pytest.mark.parametrize(
    "changes", [{"tsds": {"ridge": 1.0}}, {"training": {"weight_decay": 0.5}}, {"first_seed": 3}]
)
def test_what_no_flag_can_say_is_in_the_settings_beside_the_page(changes: dict[str, Any]) -> None:
    assert command_of(build(CompareSettings, changes)) == WITH_FILE


def test_a_command_tells_no_folder() -> None:
    data = {"dataset": "/home/some one/my set.csv", "secondary": "../near/b.csv"}
    settings = build(CompareSettings, {"data": data})
    assert command_of(settings) == "lipo compare --dataset 'my set.csv' --secondary ../near/b.csv"


def test_the_machine_is_described_without_its_name() -> None:
    import platform

    facts = environment()
    assert {"lipo", "git commit", "Python", "processor", "cores", "torch", "rdkit"} <= set(facts)
    assert all(facts.values())
    assert facts["Python"] == platform.python_version()
    assert not any("/" in value for value in facts.values())
    assert platform.node() not in facts.values()
