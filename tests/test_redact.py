"""No password of an address is shown."""

from __future__ import annotations

import sys

import pytest

from lipo_cli.redact import without_passwords
from lipo_cli.tracking.provenance import command_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://ann:se/cr:t?@host:5432/db", "postgresql://ann:***@host:5432/db"),
        ("mysql+pymysql://:x@h/d and a://b:c@d", "mysql+pymysql://:***@h/d and a://b:***@d"),
        ("postgresql://h/d?user=ann&password=x%20y&sslmode=on",
         "postgresql://h/d?user=ann&password=***&sslmode=on"),
        ("http://127.0.0.1:5000 models:/lipophilicity@champion",
         "http://127.0.0.1:5000 models:/lipophilicity@champion"),
        ("sqlite:///file.db", "sqlite:///file.db"),
        ("postgresql://ann:s3c@ret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://h/d?sslpassword=xx", "postgresql://h/d?sslpassword=***"),
        ("postgresql://ann@host/db", "postgresql://ann@host/db"),
        ("CC@CC:O", "CC@CC:O"),
    ],
)  # fmt: skip
def test_the_password_is_three_stars(text: str, shown: str) -> None:
    assert without_passwords(text) == shown


def test_the_command_line_that_runs_carry_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ["lipo", "finetune", "--tune-storage", "postgresql://ann:secret@host/db"]
    monkeypatch.setattr(sys, "argv", given)
    assert command_line() == "lipo finetune --tune-storage postgresql://ann:***@host/db"
