"""What a result was computed with: versions, processor, commit. No names of hosts or folders."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

import lipo_cli
from lipo_cli.tracking.provenance import git_commit

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "rdkit",
    "mlflow",
)
_CPUINFO = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Returns what a reader needs to judge or repeat a computation, by name, in reading order."""
    found = {
        "lipo": lipo_cli.__version__,
        "git commit": git_commit() or "not run from a checkout",
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": _cores(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
    }
    return found | {name: _version(name) for name in LIBRARIES}


def processor() -> str:
    """Returns the name of the processor, as far as the system tells it."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (named or [platform.processor() or platform.machine() or "unknown"])[0]


def _cores() -> str:
    total = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    threads = os.environ.get("OMP_NUM_THREADS")
    parts = [str(total)]
    if usable != total:
        parts.append(f"{usable} usable")
    if threads:
        parts.append(f"OMP_NUM_THREADS={threads}")
    return ", ".join(parts)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
