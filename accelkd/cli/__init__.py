"""The command `accelkd`: what is not Dagster's to do. One module per reader; a command calls one use case."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from inspect import BoundArguments
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Group, Parameter

from accelkd.cli.analyst import predict, pull, stream, summary
from accelkd.cli.arguments import CommandLine
from accelkd.cli.data_engineer import (
    alert,
    backup,
    check,
    check_sensor,
    configure,
    ingest,
    metrics,
    rebuild_warehouse,
    repair,
    restore,
    simulate,
    take_over,
    upgrade,
    validate,
    withdraw,
)
from accelkd.cli.researcher import adopt, export, promote, reproduce, rollback, train
from accelkd.home.layout import Home
from accelkd.home.units import make_cache

_Parsed = tuple[Callable[..., int | None], BoundArguments, Mapping[str, Any]]

# Every command, in the order of `accelkd --help`
COMMANDS: dict[str, tuple[Callable[..., int], ...]] = {
    "Data engineer": (
        simulate,
        ingest,
        validate,
        check,
        check_sensor,
        configure,
        repair,
        rebuild_warehouse,
        take_over,
        withdraw,
        alert,
        metrics,
        backup,
        restore,
        upgrade,
    ),
    "Researcher": (train, adopt, promote, rollback, export, reproduce),
    "Analyst": (predict, stream, summary, pull),
}

app = App(
    name="accelkd",
    help="Wrist recordings to health-relevant embeddings.",
    help_format="plaintext",  # Markdown takes longer to load than all else that help needs
    version_flags=(),
    print_error=False,
    exit_on_error=False,
)
options = Group("Options", sort_key=0)
app["--help"].group = options
for reader, commands in COMMANDS.items():
    group = Group.create_ordered(reader)
    for number, command in enumerate(commands):
        app.command(command, group=group, sort_key=number)


@app.meta.default
def _run(
    *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    home: Annotated[
        str | None, Parameter(group=options, help="where all state lives (default: $ACCELKD_HOME, else ./.accelkd)")
    ] = None,
    command_line: CommandLine,
) -> int | None:
    if not words:
        raise ValueError("a command is missing: `accelkd --help` lists them")
    if home:
        os.environ["ACCELKD_HOME"] = home
    opened = Home.from_environment()
    make_cache(opened)
    return _call(app.parse_args(words), {"home": opened, "command_line": command_line})


def _call(parsed: _Parsed, given: Mapping[str, Any]) -> int | None:
    """Call what was parsed, with those of the `given` values that it asks for beside its arguments."""
    command, bound, asked = parsed
    return command(*bound.args, **bound.kwargs, **{name: given[name] for name in asked})


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Bad input ends with one clear line on stderr and status 2."""
    command_line = list(sys.argv[1:] if argv is None else argv)
    try:
        return _call(app.meta.parse_args(command_line), {"command_line": command_line}) or 0
    except (CycloptsError, ValueError, LookupError, OSError) as error:
        line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(error))
        print(f"accelkd: {line}", file=sys.stderr)
        return 2
