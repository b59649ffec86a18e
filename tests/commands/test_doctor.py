from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lipo_cli.commands import doctor_checks
from lipo_cli.main import main
from lipo_cli.tracking.owner import this_process
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.store import Store


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict]]:
    code = main(["doctor", "--json", *arguments])
    content = json.loads(capsys.readouterr().out)
    assert content["healthy"] == (code == 0)
    return code, {check["name"]: check for check in content["checks"]}


@pytest.fixture(autouse=True)
def healthy_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the slow part out where a test is about the store."""
    if "whole" not in request.node.name:
        monkeypatch.setattr(doctor_checks, "environment_checks", list)


def forge(store: Store, **changes: str) -> str:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with start_run(store, "lipo", "died") as run:
        pass
    client = store.client()
    tags = {**this_process().tags(), "lipo.pid": str(child.pid), **changes}
    for key, value in tags.items():
        client.set_tag(run.run_id, key, value)
    client.update_run(run.run_id, status="RUNNING")
    return run.run_id


def test_whole_report_on_this_machine(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    code, checks = doctor(capsys, "--store", str(store.root))
    assert code == 0, checks
    assert "threads" in checks["device"]["detail"]
    assert "torch 2.13.0" in checks["packages"]["detail"]
    assert "sha256" in checks["checkpoint: small"]["detail"]
    assert "molecules" in checks["data: demo"]["detail"]
    assert "0 runs" in checks["store"]["detail"]


def test_whole_table_is_readable(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--store", str(store.root)]) == 0
    assert "no dead run" in capsys.readouterr().out


def test_store_that_is_not_there_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, checks = doctor(capsys, "--store", str(tmp_path / "none"))
    assert code == 0
    assert "the first run makes it" in checks["store"]["detail"]
    assert not (tmp_path / "none").exists()


def test_a_file_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "store"
    path.touch()
    assert main(["doctor", "--store", str(path), "--json"]) == 1
    assert "is a file, not a folder" in capsys.readouterr().out
    assert main(["model", "list", "--store", str(path)]) == 7
    assert "is a file, not a folder" in capsys.readouterr().err


def test_broken_store_needs_the_user(store_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (store_root / "mlflow.db").write_bytes(b"broken" * 1000)
    code, checks = doctor(capsys, "--store", str(store_root))
    assert code == 1
    assert checks["store"]["state"] == "fail"


def test_dead_run_is_told_then_repaired(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--store", str(store.root))
    run_id = forge(store)
    code, checks = doctor(capsys, *where)
    assert code == 1
    assert run_id in checks["running"]["detail"]
    assert "--repair" in checks["running"]["hint"]
    code, checks = doctor(capsys, *where, "--repair")
    assert code == 0
    assert run_id in checks["running"]["detail"]
    assert store.client().get_run(run_id).info.status == "KILLED"
    assert doctor(capsys, *where)[0] == 0


def test_live_run_is_left_alone(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with start_run(store, "lipo", "lives") as run:
        code, checks = doctor(capsys, "--store", str(store.root), "--repair")
        assert code == 0
        assert checks["running"]["detail"] == "no dead run; 1 alive"
        assert store.client().get_run(run.run_id).info.status == "RUNNING"


def test_run_of_another_machine_is_a_warning_and_closed_by_name(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--store", str(store.root))
    run_id = forge(store, **{"lipo.host": "elsewhere"})
    code, checks = doctor(capsys, *where, "--repair")
    assert code == 0
    assert checks["running elsewhere"]["state"] == "warn"
    assert doctor(capsys, *where, "--repair", "--close", run_id)[0] == 0
    assert store.client().get_run(run_id).info.status == "KILLED"


def test_wrong_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy<1", "nothing-here>=1"])
    (check,) = doctor_checks._packages()
    assert check.state == "fail"
    assert "numpy is" in check.detail
    assert "nothing-here is missing" in check.detail


def test_close_without_repair_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--store", str(store.root), "--close", "abc"]) == 2
    assert "--repair" in capsys.readouterr().err
