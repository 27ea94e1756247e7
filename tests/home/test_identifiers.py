"""Identifiers: whatever passes is safe as a file name and in SQL."""

from __future__ import annotations

from pathlib import PurePosixPath

from hypothesis import given
from hypothesis import strategies as st

from accelkd.home.identifiers import check_identifier


@given(st.text(max_size=140))
def test_an_identifier_is_safe_as_a_file_name_and_between_quotes(text: str) -> None:
    try:
        check_identifier("participant_id", text)
    except ValueError:
        return
    assert text.isascii()
    assert PurePosixPath(text).name == text
    assert 1 <= len(text) <= 128
    assert not set(text) & set("'\"`;\\/.$ \t\n\r\0")
    assert not text.startswith("-")


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", fullmatch=True))
def test_every_plain_name_is_an_identifier(text: str) -> None:
    assert check_identifier("participant_id", text) == text
