"""`--tune` as a user types it: killed as a user never would, in a journal and in PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lipo_cli.main import main
from lipo_cli.tracking.runs import find_runs
from lipo_cli.tracking.stale import find_stale
from lipo_cli.tracking.store import open_store
from tests.fixtures.bench import make_bench

pytestmark = pytest.mark.timeout(1800)  # dozens of trainings and starts, on a busy machine
N = 20
SECRET = "s3cr3t-w0rd"


class Desk:
    """A folder with a small dataset and a tiny model, and `lipo finetune --tune` on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flags = make_bench(folder / "bench")

    def command(self, store: str, *more: str, n: int = N) -> list[str]:
        given = ["--learning-rate", "1e-7", "-p", "lora", "--tune", str(n), "--store", store]
        return [sys.executable, "-m", "lipo_cli", "finetune", *self.flags, *given, "--json", *more]

    def run(self, store: str, *more: str, n: int = N, fails: bool = False) -> Any:
        done = subprocess.run(
            self.command(store, *more, n=n),
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode != 0) == fails, done.stderr
        return done.stderr if fails else json.loads(done.stdout)["tuning"]

    def kill_after(self, store: str, n_trials: int, *more: str) -> None:
        """Starts the search and kills it with -9 in the trial after the nth."""
        log = self.folder / f"{store}.log"
        with log.open("a") as stderr:
            begun = log.stat().st_size
            process = subprocess.Popen(
                self.command(store, *more), cwd=self.folder, stdout=subprocess.DEVNULL,
                stderr=stderr,
            )  # fmt: skip
            deadline = time.monotonic() + 240
            while time.monotonic() < deadline and process.poll() is None:
                if log.read_text()[begun:].count(": trial ") >= n_trials:
                    break
                time.sleep(0.02)
            time.sleep(0.3)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(timeout=60) == -signal.SIGKILL

    def trials(self, store: str) -> dict[str, dict[str, str]]:
        """Returns the tags of the finished trials by their number."""
        runs = find_runs(open_store(self.folder / store), "lipo", "tags.`lipo.kind` = 'trial'")
        assert {run.status for run in runs} == {"FINISHED"}
        assert len({run.params["trial"] for run in runs}) == len(runs)
        return {run.params["trial"]: {**run.tags, **run.params} for run in runs}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="module")
def whole(desk: Desk) -> dict[str, Any]:
    """A search that nothing disturbed."""
    return desk.run("whole")


def found(tuning: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in tuning.items() if k not in ("seconds", "run_id", "reused")}


def states_in(url: str | None, journal: Path) -> Counter[str]:
    """Returns how often each state is in the one study of a storage."""
    import optuna

    from lipo_cli.comparison.tuning_storage import open_storage

    with open_storage(url, journal) as storage:
        (name,) = optuna.get_all_study_names(storage)
        study = optuna.load_study(study_name=name, storage=storage)
        return Counter(trial.state.name for trial in study.get_trials())


@pytest.mark.slow
def test_killed_with_9_and_resumed_it_ends_with_20_trials(
    desk: Desk, whole: dict[str, Any]
) -> None:
    for n_trials in (4, 2):
        desk.kill_after("killed", n_trials)
    assert find_stale(open_store(desk.folder / "killed"))
    resumed = desk.run("killed")
    assert resumed["n_complete"] + resumed["n_pruned"] + resumed["n_diverged"] == N
    assert found(resumed) == found(whole)
    assert len(desk.trials("killed")) == N
    (journal,) = (desk.folder / "killed" / "tuning").glob("*.log")
    states = states_in(None, journal)
    assert states["COMPLETE"] + states["PRUNED"] == N
    assert 1 <= states["FAIL"] <= 2
    assert states["RUNNING"] + states["WAITING"] == 0
    assert not find_stale(open_store(desk.folder / "killed"))


@pytest.mark.slow
def test_it_improves_on_a_bad_rate_and_says_so(
    desk: Desk, whole: dict[str, Any], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    assert whole["first_parameters"]["learning_rate"] == 1e-7
    assert whole["val_rmse"] < whole["first_val_rmse"] - 0.05
    assert whole["parameters"]["learning_rate"] > 1e-5
    assert whole["chosen_by"] == "validation"
    monkeypatch.chdir(desk.folder)
    arguments = [text for text in desk.command("whole")[3:] if text != "--json"]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert f"tuned lora in {N} trials (" in shown.out
    assert f"validation RMSE {whole['val_rmse']:.4f} against {whole['first_val_rmse']:.4f}" in (
        shown.out
    )
    assert "from here on, found again" in shown.err
    assert ": trial " not in shown.err


@pytest.mark.slow
def test_two_at_once_share_the_trials_and_find_the_same(desk: Desk) -> None:
    both = [
        subprocess.Popen(
            desk.command("shared", n=8), cwd=desk.folder, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    results = []
    for process in both:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 0, err
        results.append(found(json.loads(out)["tuning"]))
    assert results[0] == results[1]
    (journal,) = (desk.folder / "shared" / "tuning").glob("*.log")
    states = states_in(None, journal)
    assert states["RUNNING"] + states["WAITING"] == 0
    assert states["COMPLETE"] + states["PRUNED"] >= 8


POSTGRES = shutil.which("initdb"), shutil.which("postgres")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a database of our own, with a password."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (lipo[postgres])")
    initdb, postgres = POSTGRES
    if initdb is None or postgres is None:
        pytest.skip("no PostgreSQL server is installed here: no initdb and postgres on PATH")
    # Not in pytest's folder: the server refuses root, and another user cannot look in there.
    folder = Path(tempfile.mkdtemp(prefix="lipo-postgres-"))
    user = _server_user(folder)
    password = folder / "password"
    password.write_text(SECRET)
    password.chmod(0o644)
    cluster = ["-D", str(folder / "data"), "-U", "lipo", "-A", "scram-sha-256"]
    made = subprocess.run(
        [initdb, *cluster, "--pwfile", str(password), "--no-sync"],
        cwd=folder, capture_output=True, text=True, check=False, **user,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("w")
    server = subprocess.Popen(
        [postgres, "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1",
         "-k", str(folder), "-c", "fsync=off"],
        cwd=folder, stdout=log, stderr=log, **user,
    )  # fmt: skip
    try:
        url = f"postgresql://lipo:{SECRET}@127.0.0.1:{port}/postgres"
        _wait_for(url, folder / "log")
        yield url
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _server_user(folder: Path) -> dict[str, Any]:
    """Returns whom the server runs as, who owns the folder: root may not."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no other user here")


def _wait_for(url: str, log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        else:
            return


def holds_secret(folder: Path) -> list[str]:
    return [
        str(path) for path in folder.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.server
def test_in_postgresql_it_is_killed_resumed_and_the_same(
    desk: Desk, whole: dict[str, Any], database: str
) -> None:
    desk.kill_after("remote", 3, "--tune-storage", database)
    resumed = desk.run("remote", "--tune-storage", database)
    assert found(resumed) == found(whole)
    assert len(desk.trials("remote")) == N
    url = database.replace("postgresql:", "postgresql+psycopg:")
    states = states_in(url, Path("unused"))
    assert states["COMPLETE"] + states["PRUNED"] == N
    assert states["RUNNING"] + states["WAITING"] == 0
    assert not (desk.folder / "remote" / "tuning").exists()
    # Another store finds the trials in the database and trains none of them.
    elsewhere = desk.run("elsewhere", "--tune-storage", database)
    assert found(elsewhere) == found(whole)
    assert states_in(url, Path("unused")) == states
    assert len(desk.trials("elsewhere")) == N
    # The password is in neither store nor log, and the place is.
    for name in ("remote", "elsewhere", "remote.log"):
        path = desk.folder / name
        assert not (holds_secret(path) if path.is_dir() else SECRET in path.read_text())
    (run,) = find_runs(open_store(desk.folder / "remote"), "lipo", "tags.`lipo.kind` = 'tuning'")
    assert run.params["storage"] == url.replace(SECRET, "***")
    assert "postgresql://lipo:***@127.0.0.1" in run.tags["lipo.command"]


@pytest.mark.server
def test_a_database_that_refuses_is_one_line_without_the_password(
    desk: Desk, database: str
) -> None:
    wrong = database.replace(SECRET, f"{SECRET}-not")
    (line,) = [
        text
        for text in desk.run("refused", "--tune-storage", wrong, fails=True).splitlines()
        if text.startswith("error:")
    ]
    assert "the trials cannot be read or written" in line
    assert SECRET not in line
    assert "lipo:***@127.0.0.1" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tune-also", "dropout"], "--tune-also: nothing is tuned (give --tune N, too)"),
        (["--tune-storage", "postgresql://a:b@c/d"], "--tune-storage: nothing is tuned"),
        (["--tune", "0"], "tuning.trials: "),
        (["--tune", "2", "--tune-also", "rank"], "tuning.also"),
        (["--tune", "2", "-p", "full", "--tune-also", "lora_alpha"], "no method that is compared"),
        (["--tune", "2", "--tune-storage", "nonsense"], "no address of a database"),
        (["--tune", "2", "--tune-storage", "foo://a:b@c/d"], "no address of a database"),
        (["--tune", "2", "--tune-storage", "postgresql://a: b@c/d"], "an address holds no blanks"),
        (["--tune", "2", "--tune-storage", "sqlite://"], "in memory is gone"),
    ],
)
def test_an_option_without_effect_or_sense_is_refused_before_the_data_are_read(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("finetune", "compare"):
        assert main([command, "--dataset", "missing.csv", *flags]) in (2, 3)
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        if not (command == "compare" and "-p" in flags):
            assert said in lines[0]


def test_a_dry_run_counts_the_trials(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.folder)
    flags = ["-p", "lora", "-s", "none", "--no-controls", "--dry-run", "--store", "dry"]
    assert main(["compare", *desk.flags, *flags, "--tune", "50"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert "1 cells on a pool of 0, and 50 trials for each of 1, 2 epochs each: about " in last
    assert main(["compare", *desk.flags, *flags, "--tune", "50", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["n_trials"] == 50
    # The cell also takes five seconds of its own, and a look at validation and test at its end.
    molecules = 2 * (64 + 8 / 3) * 51 + (8 + 18) / 3
    assert plan["seconds"] == pytest.approx(5 + molecules / plan["molecules_per_second"]["lora"])
    assert not (desk.folder / "dry").exists()


def test_a_sqlite_file_holds_one_process_at_a_time(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lipo_cli.comparison.tuning_storage import open_storage

    monkeypatch.chdir(desk.folder)
    url = f"sqlite:///{desk.folder / 'trials.db'}"
    arguments = [*desk.command("sqlite", "--tune-storage", url, n=2)[3:]]
    with open_storage(url, Path("unused")):
        assert main(arguments) == 7
    assert "another process tunes in this SQLite file" in capsys.readouterr().err
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["tuning"]["n_trials"] == 2
