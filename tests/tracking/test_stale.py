from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lipo_cli.errors import TrackingError
from lipo_cli.tracking.found import read_run
from lipo_cli.tracking.owner import Owner, liveness, this_process
from lipo_cli.tracking.runs import start_run
from lipo_cli.tracking.stale import find_running, find_stale, repair
from lipo_cli.tracking.store import Store

NOW = time.time()


def forge(store: Store, owner: Owner) -> str:
    """Makes a run that says RUNNING and belongs to `owner`."""
    with start_run(store, "lipo", "x") as run:
        pass
    client = store.client()
    for key, value in owner.tags().items():
        client.set_tag(run.run_id, key, value)
    client.update_run(run.run_id, status="RUNNING")
    return run.run_id


def dead_pid() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_own_process_is_alive() -> None:
    assert liveness(this_process(), NOW) == "alive"


def test_process_that_ended_is_dead() -> None:
    assert liveness(replace(this_process(), pid=dead_pid()), NOW) == "dead"


def test_number_that_was_given_out_again_is_dead() -> None:
    me = this_process()
    boot, namespace, ticks = me.start.split("/")
    other = f"{boot}/{namespace}/{int(ticks) - 1}"
    assert liveness(replace(me, start=other), NOW) == "dead"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="zombies are read from /proc")
def test_process_that_waits_to_be_reaped_is_dead() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        waited = time.monotonic() + 30  # a busy machine takes its time to end the child
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < waited
            time.sleep(0.05)
        assert liveness(replace(this_process(), pid=pid), NOW) == "dead"
    finally:
        os.waitpid(pid, 0)


def test_another_machine_or_container_is_unknown() -> None:
    me = this_process()
    boot, _, ticks = me.start.split("/")
    assert liveness(replace(me, host="elsewhere"), NOW) == "unknown"
    assert liveness(replace(me, start=f"{boot}/pid:[1]/{ticks}"), NOW) == "unknown"


def test_another_boot_is_dead_only_for_runs_older_than_this_one() -> None:
    me = this_process()
    other = replace(me, start="/".join(["other-boot", *me.start.split("/")[1:]]))
    assert liveness(other, psutil.boot_time() - 60) == "dead"
    assert liveness(other, NOW) == "unknown"


def test_owner_by_the_clock_where_there_is_no_proc() -> None:
    born = psutil.Process().create_time()
    me = Owner(socket.gethostname(), os.getpid(), f"{born:.2f}")
    assert liveness(me, NOW) == "alive"
    assert liveness(replace(me, start=f"{born - 100:.2f}"), NOW) == "dead"
    assert liveness(replace(me, pid=dead_pid()), NOW) == "dead"


def test_owner_survives_the_tags() -> None:
    me = this_process()
    assert Owner.from_tags(me.tags()) == me
    assert Owner.from_tags({}) is None
    assert Owner.from_tags({**me.tags(), "lipo.pid": "x"}) is None


def test_live_run_is_never_closed(store: Store) -> None:
    with start_run(store, "lipo", "x") as run:
        assert find_stale(store) == []
        assert repair(store) == []
        assert [found.state for found in find_running(store)] == ["alive"]
        with pytest.raises(TrackingError, match="is alive"):
            repair(store, [run.run_id])
        assert store.client().get_run(run.run_id).info.status == "RUNNING"


def test_dead_run_is_found_and_closed_as_killed(store: Store) -> None:
    run_id = forge(store, replace(this_process(), pid=dead_pid()))
    assert [run.run_id for run in find_stale(store)] == [run_id]
    assert [run.run_id for run in repair(store)] == [run_id]
    run = store.client().get_run(run_id)
    assert run.info.status == "KILLED"
    assert "is gone" in run.data.tags["lipo.repaired"]
    assert find_running(store) == []


def test_run_of_another_machine_is_closed_only_by_name(store: Store) -> None:
    run_id = forge(store, replace(this_process(), host="elsewhere"))
    assert repair(store) == []
    assert [run.run_id for run in repair(store, [run_id])] == [run_id]
    with pytest.raises(TrackingError, match="does not say RUNNING"):
        repair(store, [run_id])


def test_runs_of_other_programs_are_left_alone(store: Store) -> None:
    client = store.client()
    run = client.create_run("0", run_name="somebody else's")
    assert find_running(store) == []
    assert repair(store) == []
    assert client.get_run(run.info.run_id).info.status == "RUNNING"


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_that_had_finished_and_was_opened_again_is_finished(
    store: Store, tmp_path: Path, whole: bool
) -> None:
    file = tmp_path / "table.csv"
    file.write_text("a\n")
    with start_run(store, "lipo", "x") as run:
        run.file(file, "result")
    with start_run(store, "lipo", "x", run_id=run.run_id) as again:
        for key, value in replace(this_process(), pid=dead_pid()).tags().items():
            store.client().set_tag(again.run_id, key, value)
        if not whole:
            read_run(store, run.run_id).artifact("result/table.csv").unlink()
        repair(store)
        state = store.client().get_run(run.run_id).info.status
    assert state == ("FINISHED" if whole else "KILLED")
