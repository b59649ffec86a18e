"""The pages that a user reads hold what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docker/*.md")])


def test_the_cli_page_is_what_help_says() -> None:
    command = [sys.executable, str(ROOT / "docs" / "make_cli_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_picture_of_a_page_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["demo", "real", "measured"])
def test_the_readme_shows_a_result(name: str) -> None:
    """With its controls: a random one of equal size wherever TS-DShapley kept some of the pool."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {name}:begin -->(.*?)<!-- {name}:end -->", text, re.DOTALL)
    assert found is not None
    chosen = dict(re.findall(r"^\| ([a-z:=0-9]+) \| (?:\w+ \| )?(\d+) \|", found[1], re.MULTILINE))
    assert {"none", "all", "tsds"} <= chosen.keys()
    kept = int(chosen["tsds"])
    assert chosen.get(f"random:k={kept}") == (str(kept) if 0 < kept < int(chosen["all"]) else None)


def test_no_page_names_a_folder_of_somebodys_machine() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(home|root|work|tmp|Users)/", text), page
