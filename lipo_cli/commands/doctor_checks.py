"""The checks of `lipo doctor`, each a name, a state and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from lipo_cli.errors import LipoError
from lipo_cli.tracking.stale import RunningRun, find_running, repair
from lipo_cli.tracking.store import (
    DATABASE,
    Store,
    database_path,
    open_store,
    pages,
    tracking_errors,
)

State = Literal["ok", "warn", "fail"]

CORE = ("torch", "transformers", "peft", "mlflow", "rdkit", "numpy", "pandas", "typer", "pydantic")
DATASETS = ("lipophilicity", "demo")


@dataclass(frozen=True)
class Check:
    """What was found.

    Attributes:
        name: What was looked at.
        state: "fail" needs the user, "warn" may want him.
        detail: What was found.
        hint: What to do about it.
    """

    name: str
    state: State
    detail: str
    hint: str = ""

    def as_dict(self) -> dict[str, str]:
        """Returns the check as JSON has it."""
        return asdict(self)


def environment_checks() -> list[Check]:
    """Checks Python, the packages, the device, the data and the shipped checkpoints."""
    parts: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("device", _device),
        ("data", _data),
        ("checkpoint", _checkpoints),
    ]
    checks: list[Check] = []
    for name, part in parts:
        try:
            checks.extend(part())
        except Exception as error:  # a doctor must survive what he finds
            checks.append(Check(name, "fail", f"{type(error).__name__}: {error}"))
    return checks


def store_checks(root: Path, close: Sequence[str] = (), *, repair: bool = False) -> list[Check]:
    """Checks the store and its runs that say RUNNING; closes the dead ones on request."""
    here = not os.environ.get("MLFLOW_TRACKING_URI") and not root.is_file()
    if here and not (root / DATABASE).exists():
        return [Check("store", "ok", f"none in {root} yet; the first run makes it")]
    try:
        store = open_store(root)
        return [_store(store), *_running(store, close, wanted=repair)]
    except LipoError as error:
        return [Check("store", "fail", str(error))]


def _python() -> Iterator[Check]:
    wanted = importlib.metadata.metadata("lipo")["Requires-Python"]
    here = platform.python_version()
    fits = here in Requirement(f"python{wanted}").specifier
    yield Check("python", "ok" if fits else "fail", f"{here} on {platform.platform()}", wanted)


def _packages() -> Iterator[Check]:
    known = {
        need.name: need
        for need in map(Requirement, importlib.metadata.requires("lipo") or ())
        if need.marker is None or need.marker.evaluate({"extra": ""})
    }
    odd: list[str] = []
    for name, need in known.items():
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            odd.append(f"{name} is missing ({need.specifier} is needed)")
            continue
        if not need.specifier.contains(here, prereleases=True):
            odd.append(f"{name} is {here}, {need.specifier} is needed")
    if odd:
        yield Check("packages", "fail", "; ".join(odd), "install again: pip install -e .")
        return
    shown = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in CORE)
    yield Check("packages", "ok", f"all {len(known)} as needed: {shown}")


def _device() -> Iterator[Check]:
    import torch

    from lipo_cli.model.precision import has_bf16, pick_device

    device = pick_device("auto")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    bits = "bf16" if has_bf16(device) else "float32 (no bf16 in hardware)"
    yield Check("device", "ok", f"{device} ({name}), {bits}, {torch.get_num_threads()} threads")


def _data() -> Iterator[Check]:
    from lipo_cli.chem.datasets import load_dataset
    from lipo_cli.settings import DataSettings

    for name in DATASETS:
        try:
            found = load_dataset(DataSettings(dataset=name))
        except LipoError as error:
            # The demo set comes with the package; the others are fetched.
            state: State = "fail" if name == "demo" else "warn"
            yield Check(f"data: {name}", state, str(error))
            continue
        second = f", {len(found.secondary):,} secondary" if found.secondary is not None else ""
        yield Check(f"data: {name}", "ok", f"{len(found.primary):,} molecules{second}")


def _checkpoints() -> Iterator[Check]:
    from lipo_cli.model.base import read_weights, resolve_base, shipped_names

    names = shipped_names()
    if not names:
        yield Check("checkpoint", "fail", "the package holds none", "install again")
    for name in names:
        try:
            base = resolve_base(name)
            weights = sum(tensor.numel() for tensor in read_weights(base.weights).values())
            detail = f"{weights / 1e6:.1f} M weights, sha256 {base.sha256[:12]}"
            yield Check(f"checkpoint: {name}", "ok", detail)
        except LipoError as error:
            yield Check(f"checkpoint: {name}", "fail", str(error), "install again")


def _store(store: Store) -> Check:
    client = store.client()
    with tracking_errors(store.uri):
        experiments = client.search_experiments()
        runs = sum(
            len(page)
            for experiment in experiments
            for page in pages(partial(client.search_runs, [experiment.experiment_id]))
        )
    size = ""
    database = database_path(store)
    if database is not None:
        size = f", database {database.stat().st_size / 1e6:.1f} MB"
    counted = f"{runs:,} runs in {len(experiments)} experiments"
    return Check("store", "ok", f"{store.shown}, schema up to date, {counted}{size}")


def _running(store: Store, close: Sequence[str], *, wanted: bool) -> list[Check]:
    if wanted:
        closed = repair(store, close)
        if closed:
            return [
                Check("running", "ok", f"closed: {_named(closed)}"),
                *_unknown([run for run in find_running(store) if run.state == "unknown"]),
            ]
    runs = find_running(store)
    dead = [run for run in runs if run.state == "dead"]
    alive = [run for run in runs if run.state == "alive"]
    checks = _unknown([run for run in runs if run.state == "unknown"])
    if dead:
        detail = f"{len(dead)} runs say RUNNING, their process is gone: {_named(dead)}"
        checks.append(Check("running", "fail", detail, "lipo doctor --repair closes them"))
    else:
        checks.append(Check("running", "ok", f"no dead run; {len(alive)} alive"))
    return checks


def _unknown(runs: Sequence[RunningRun]) -> list[Check]:
    if not runs:
        return []
    hosts = ", ".join(sorted({run.owner.host for run in runs}))
    return [
        Check(
            "running elsewhere",
            "warn",
            f"runs of another machine or container ({hosts}): {_named(runs)}",
            "run `lipo doctor` there, or close one with --repair --close RUN",
        )
    ]


def _named(runs: Sequence[RunningRun], most: int = 5) -> str:
    shown = ", ".join(f"{run.run_id} ({run.name})" for run in runs[:most])
    return shown if len(runs) <= most else f"{shown} and {len(runs) - most} more"
