"""Markdown from values: tables, code, images, and text from outside that stays text.

Names of batches and files, reasons and answers come from whoever delivers data. `escape` makes any text literal;
`table` does so with every cell that is not `Markup`.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

# With a backslash what every renderer knows so, as an entity what some do not, or what a link could be made of
_SPECIAL = re.compile(r"[\\`*_\[\]|]|[&<@~]|:(?=//)|(?<=(?i:www))\.")
_BACKSLASH = {*"\\`*_[]|"}
_INNER_UNDERSCORE = re.compile(r"(?<=[^\W_])_(?=[^\W_])")  # means nothing: names stay readable
_BLOCK_START = re.compile(r"^(?:[#+=:>-]|\d(?=\d{0,8}[.)]))")
_REVERSING = {*"\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"}
_IMAGE = re.compile(r"!\[(?P<caption>(?:[^\]\\]|\\.)*)\]\((?P<file>[\w.-]+\.png)\)")


class Markup(str):
    """Text that is Markdown already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """Any text as Markdown that shows exactly it, on one line: no link, no markup, no HTML, no cell's end.

    Line breaks and control characters become spaces, and spaces at the ends are lost. `Markup` is returned as it is.
    """
    if isinstance(text, Markup):
        return text
    return Markup(_BLOCK_START.sub(_entity, _inline(text)))


def code(text: object) -> Markup:
    """Any text as a code span, which also stays in its table cell."""
    plain = _visible(text)
    if not plain:
        return Markup("")
    if "|" in plain:  # a code span cannot hold it in every table
        return escape(plain)
    longest = max((len(ticks) for ticks in re.findall("`+", plain)), default=0)
    fence, gap = "`" * (longest + 1), " " if plain.startswith("`") or plain.endswith("`") else ""
    return Markup(f"{fence}{gap}{plain}{gap}{fence}")


def table(header: Sequence[str], rows: Iterable[Sequence[object]], *, floats: str = ",.2f", integers: str = ",") -> str:
    """A Markdown table without a line break at its end; `rows` have a value for each column of `header`.

    `floats` and `integers` are the format specifications of numbers. None becomes an empty cell; any other value is
    escaped, unless it is `Markup`, so that a row stays one row and text stays text.
    """
    cells = [[_cell(value, floats, integers) for value in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (cells[0], ["---"] * len(header), *cells[1:]))


def embedded_png(png: bytes, caption: str) -> Markup:
    """A PNG as an image that needs no file beside the text."""
    return Markup(f"![{escape(caption)}](data:image/png;base64,{base64.b64encode(png).decode()})")


def embed_images(text: str, folder: Path, *, max_bytes: int) -> Markup:
    """Markdown with the PNGs of `folder` that it links to embedded, in their order, up to `max_bytes` of them in all.

    What is missing or too large is named instead.
    """
    room = max_bytes

    def embedded(match: re.Match[str]) -> str:
        nonlocal room
        path = folder / match["file"]
        size = path.stat().st_size if path.is_file() else 0
        if not 0 < size <= room:
            return f"*{match['caption']}: {code(path)}*"
        room -= size
        return f"![{match['caption']}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"

    return Markup(_IMAGE.sub(embedded, text))


def _visible(text: object) -> str:
    """The text on one line, without what does not show or makes other characters show in another order."""
    return "".join(" " if _hidden(character) else character for character in str(text)).strip()


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} or character in _REVERSING


def _inline(text: object) -> str:
    parts = _INNER_UNDERSCORE.split(_visible(text))
    return "_".join(
        _SPECIAL.sub(lambda match: f"\\{match[0]}" if match[0] in _BACKSLASH else _entity(match), part)
        for part in parts
    )


def _entity(match: re.Match[str]) -> str:
    return {"&": "&amp;", "<": "&lt;"}.get(match[0], f"&#{ord(match[0])};")


def _cell(value: object, floats: str, integers: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, floats)
    if isinstance(value, int) and not isinstance(value, bool):
        return format(value, integers)
    return value.replace("\n", " ") if isinstance(value, Markup) else _inline(value)
