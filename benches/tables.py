"""Tables of benchmarks, in Markdown, printed row by row as they are measured."""

from __future__ import annotations


def header(*names: str) -> None:
    """Begin a table."""
    print(f"\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")


def row(*values: object) -> None:
    """A row of the table that was begun last."""
    print(f"| {' | '.join(map(str, values))} |", flush=True)
