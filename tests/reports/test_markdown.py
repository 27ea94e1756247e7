"""Markdown: a row stays a row, numbers are written as asked, and text from outside shows as the text that it is."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from accelkd.reports import markdown

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = [
    "a|b",
    "<script>alert(1)</script>",
    "`code`",
    "x](javascript:alert(1))",
    "[x](javascript:alert(1))",
    "![x](https://example.org/x.png)",
    "<https://example.org>",
    "**bold** _it_ ~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "===",
    "&lt;b&gt; &amp;",
    "two\nlines\r\nand\x00nul",
    "p\\|q \\",
    "https://example.org www.example.org a@example.org",
    "\ud800 \u202egnp.exe",
    "___",
    "    indented",
]
# Mostly the characters that mean something somewhere
TEXT = st.text(st.one_of(st.sampled_from("\\`*_{}[]()<>#+-.!|&~:/@=\"' \n\r\tawX1"), st.characters()), max_size=40)
RENDERER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def shown(text: str) -> str:
    """What a reader has to see: the text on one line, runs of spaces as one, without invisible characters."""
    visible = (
        " " if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} or c in markdown._REVERSING else c for c in text
    )
    return re.sub(r" +", " ", "".join(visible).strip())


def rendered(text: str) -> tuple[list[str], str]:
    """The kinds of tokens that Markdown is made of, and the text in them."""
    kinds, words = [], []
    for token in RENDERER.parse(text):
        kinds.append(token.type)
        for child in token.children or []:
            kinds.append(child.type)
            words.append(child.content)
    return kinds, re.sub(r" +", " ", "".join(words))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_shows_as_it_is(text: str) -> None:
    test_any_text_shows_as_it_is.hypothesis.inner_test(text)  # type: ignore[attr-defined]  # hypothesis's own


@given(TEXT)
def test_any_text_shows_as_it_is(text: str) -> None:
    """In a paragraph, in a cell and in a code span: nothing but text, and the same text."""
    escaped = markdown.escape(text)
    escaped.encode()  # no half of a pair
    assert "\n" not in escaped
    kinds, words = rendered(escaped)
    assert set(kinds) <= {"paragraph_open", "inline", "text", "text_special", "paragraph_close"}
    assert words == shown(text)

    kinds, words = rendered(markdown.table(("h",), [(text,), ("next",)]))
    assert set(kinds) - {"inline", "text", "text_special"} == {
        *("table_open", "thead_open", "tr_open", "th_open", "th_close", "tr_close", "thead_close"),
        *("tbody_open", "td_open", "td_close", "tbody_close", "table_close"),
    }
    assert kinds.count("td_open") == 2
    assert words == f"h{shown(text)}next"

    kinds, words = rendered(f"it is {markdown.code(text)} .")
    assert set(kinds) <= {"paragraph_open", "inline", "text", "text_special", "code_inline", "paragraph_close"}
    assert words.replace(" ", "") == f"itis{shown(text)}.".replace(" ", "")


def test_links_are_not_made_of_bare_addresses() -> None:
    """Renderers of GitHub's dialect link them without any markup."""
    escaped = markdown.escape("https://example.org www.example.org a@example.org")
    assert not re.search(r"https?://|www\.|@", escaped)


def test_names_stay_readable() -> None:
    assert markdown.escape("sim_a-2026.01") == "sim_a-2026.01"
    assert markdown.escape("row 3: accel_rate_hz is 0, not > 0") == "row 3: accel_rate_hz is 0, not > 0"


def test_markup_is_left_as_it_is() -> None:
    assert markdown.escape(markdown.code("a*b")) == "`a*b`"
    assert markdown.table(("h",), [(markdown.Markup("**x**"),)]).endswith("| **x** |")
    assert markdown.code("a`b") == "``a`b``"


def test_a_table_has_a_line_for_its_header_and_for_each_row() -> None:
    rows = [("heart rate", 1234.567, 12_345), ("SDNN", None, True)]
    assert markdown.table(("target", "MAE", "segments"), rows).splitlines() == [
        "| target | MAE | segments |",
        "| --- | --- | --- |",
        "| heart rate | 1,234.57 | 12,345 |",
        "| SDNN |  | True |",
    ]


def test_numbers_are_formatted_as_asked() -> None:
    table = markdown.table(("a", "b"), [(np.float64(0.000123456), 12_345)], floats=".4g", integers="")
    assert table.splitlines()[-1] == "| 0.0001235 | 12345 |"


def test_a_table_without_rows_is_its_header() -> None:
    assert markdown.table(("a", "b"), []) == "| a | b |\n| --- | --- |"


def test_images_of_the_folder_are_embedded_until_there_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "b.png").write_bytes(PNG + b"0" * 100)
    (tmp_path.parent / "outside.png").write_bytes(PNG)
    text = "![first](a.png)\n![second](b.png)\n![gone](c.png)\n![](../outside.png)\n"
    embedded = markdown.embed_images(text, tmp_path, max_bytes=20).splitlines()
    assert embedded[0] == "![first](data:image/png;base64,iVBORw0KGgo=)"
    assert embedded[1:] == [
        f"*second: `{tmp_path / 'b.png'}`*",
        f"*gone: `{tmp_path / 'c.png'}`*",
        "![](../outside.png)",
    ]
    assert markdown.embed_images(text, tmp_path, max_bytes=1000).count("data:image/png") == 2
