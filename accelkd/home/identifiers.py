"""Identifiers: the one rule that participants, recordings, batches and devices obey."""

from __future__ import annotations

import re

# No separators, quotes, dots at the start or spaces: an identifier can name a file and a SQL value as it is.
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def check_identifier(field: str, value: str) -> str:
    """Return `value` if it is an identifier; raise ValueError that names the field otherwise."""
    if not IDENTIFIER.fullmatch(value):
        raise ValueError(
            f"{field} {value!r} is not an identifier: "
            "1 to 128 letters, digits, '_' or '-', starting with a letter or digit"
        )
    return value
