"""Passwords in addresses are kept out of what is shown and kept."""

from __future__ import annotations

import re

_SHOWN = "***"
_USER_AND_PASSWORD = re.compile(r"(?P<before>://[^\s/?#:@]*:)(?P<secret>[^\s]*)(?=@)")
_IN_QUERY = re.compile(r"(?P<before>[?&](?:\w*password|passwd|pwd)=)(?P<secret>[^&\s'\"#]*)", re.I)


def without_passwords(text: str) -> str:
    """Returns the text with the password of every address in it as `***`.

    An address holds one between user and host (`postgresql://ann:secret@host/db`) or in its query
    (`?password=secret`).
    """
    for pattern in (_USER_AND_PASSWORD, _IN_QUERY):
        text = pattern.sub(lambda match: match["before"] + _SHOWN, text)
    return text
