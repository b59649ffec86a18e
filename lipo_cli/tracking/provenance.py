"""What made a run: the command line, the version, the commit and the user."""

from __future__ import annotations

import functools
import getpass
import os
import shlex
import subprocess
import sys
from pathlib import Path

import lipo_cli
from lipo_cli.redact import without_passwords

TAG_LIMIT = 5000


def provenance_tags() -> dict[str, str]:
    """Returns the tags that every run carries."""
    tags = {
        "lipo.version": lipo_cli.__version__,
        "lipo.command": command_line(),
        "mlflow.user": _user(),
        "mlflow.source.name": "lipo",
        "mlflow.source.type": "LOCAL",
    }
    commit = git_commit()
    if commit:
        tags["mlflow.source.git.commit"] = commit
    return tags


def command_line() -> str:
    """Returns the command as the user could type it again, passwords left out."""
    return without_passwords(shlex.join(["lipo", *sys.argv[1:]]))[:TAG_LIMIT]


@functools.cache
def git_commit() -> str | None:
    """Returns the commit of this code, with `-dirty`; None when it does not run from a checkout.

    A package that is installed inside somebody else's repository is not a checkout of ours.
    """
    home = Path(lipo_cli.__file__).resolve().parent.parent
    top = _git(home, "rev-parse", "--show-toplevel")
    if not top or Path(top).resolve() != home:
        return None
    commit = _git(home, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changed = _git(home, "status", "--porcelain", "--untracked-files=no", "--", "lipo_cli")
    return f"{commit}-dirty" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    # A hook or a worktree tool may have pointed git elsewhere.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"
