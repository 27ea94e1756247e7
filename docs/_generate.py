"""MkDocs hook: fills the pages under `reference/` from the code, and makes pages of the notebooks.

A page has lines `<!-- generate: NAME -->`; each is replaced by what the function of that name returns. Whatever fails
here (an import, an unknown name, a table without rows) fails the build.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from inspect import getsource
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

import duckdb

import accelkd
import rust_dsp
from accelkd.cli import COMMANDS, main
from accelkd.home.settings import Settings
from accelkd.models.bundled import NAMES, bundled_folder
from accelkd.recordings.devices import DEVICES, Device
from accelkd.training.presets import PRESETS
from accelkd.warehouse.documentation import documented_tables
from accelkd.warehouse.schema import schema_sql
from orchestration.definitions import defs

MARK = re.compile(r"^<!-- generate: (\w+) -->$", re.MULTILINE)


def on_files(files: Any, config: Any) -> None:
    """Called by MkDocs with the files of the site: each notebook is joined by its page."""
    from mkdocs.structure.files import File

    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=notebook_page(notebook)))


def notebook_page(notebook: Path) -> str:
    """The cells of a notebook as Markdown, with a link to itself below the title."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    title, *parts = [source if kind == "markdown" else f"```python\n{source}\n```" for kind, source in text]
    heading, _, rest = title.partition("\n")
    return "\n\n".join(
        [heading, f"This page is the notebook [{notebook.name}]({notebook.name}).", rest.strip(), *parts]
    )


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by MkDocs for each page, before it is rendered."""
    # Python-Markdown looks for Markdown inside of HTML only where it is asked to, GitHub always.
    return MARK.sub(lambda mark: generated(mark[1]), markdown.replace("<details>", '<details markdown="1">'))


def generated(name: str) -> str:
    """What the function of that name returns. Raises ValueError if there is none."""
    if name not in GENERATORS:
        raise ValueError(f"nothing generates {name!r}; there are {', '.join(GENERATORS)}")
    return GENERATORS[name]()


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. Raises ValueError if it has no rows."""
    lines = [[_cell(value) for value in row] for row in rows]
    if not lines:
        raise ValueError(f"no rows for the table of {', '.join(header)}")
    return "\n".join(f"| {' | '.join(line)} |" for line in ([*header], ["---"] * len(header), *lines))


def _cell(value: object) -> str:
    return ("" if value is None else str(value)).replace("|", r"\|").replace("\n", " ").strip()


def _text(value: str) -> str:
    """Words in which `<` opens no HTML."""
    return value.replace("<", "&lt;")


def _code(value: object) -> str:
    return f"`{value}`"


def command_line() -> str:
    """The command's help, and that of each of its subcommands."""
    names = [command.__name__.replace("_", "-") for commands in COMMANDS.values() for command in commands]
    parts = [f"```text\n{_help()}```", *(f"## {name}\n\n```text\n{_help(name)}```" for name in names)]
    return "\n\n".join(parts)


def _help(*command: str) -> str:
    printed = io.StringIO()
    os.environ["COLUMNS"] = "100"  # the same on every terminal
    with contextlib.redirect_stdout(printed):
        try:
            main([*command, "--help"])
        except SystemExit as end:
            if end.code:
                raise ValueError(f"accelkd {' '.join(command)} --help ended with status {end.code}") from end
    return printed.getvalue()


def settings() -> str:
    """Settings with their defaults, the comments beside them in the source, and the assets that depend on each."""
    meanings = dict(re.findall(r"^    (\w+):[^#\n]*#\s*(.*)$", getsource(Settings), re.MULTILINE))
    options = _help("configure")
    assets: dict[str, list[str]] = {}
    for spec in defs.resolve_all_asset_specs():
        for name in str(spec.metadata.get("settings", "")).split(", "):
            assets.setdefault(name, []).append(_code(spec.key.to_user_string()))
    rows = []
    for field in fields(Settings):
        option = f"--{field.name.replace('_', '-')}"
        if option not in options:
            raise ValueError(f"accelkd configure has no option {option}")
        kind = get_type_hints(Settings)[field.name]
        values = ", ".join(map(_code, get_args(kind))) or kind.__name__
        row = (_code(field.name), _code(option), values, _code(field.default), meanings.get(field.name))
        rows.append((*row, ", ".join(sorted(assets.get(field.name, [])))))
    return table(("setting", "option", "values", "default", "meaning", "assets that depend on it"), rows)


def presets() -> str:
    """One table for teachers and one for students: a row for each field, a column for each preset."""
    parts = []
    for role in ("teacher", "student"):
        configs = {name: _leaves(getattr(preset, role)) for name, preset in PRESETS.items()}
        names = dict.fromkeys(name for leaves in configs.values() for name in leaves)
        rows = [(_code(name), *(leaves.get(name, "") for leaves in configs.values())) for name in names]
        parts.append(f"## {role.capitalize()}\n\n{table(('field', *map(_code, configs)), rows)}")
    return "\n\n".join(parts)


def _leaves(config: Any, prefix: str = "") -> dict[str, object]:
    """Fields of a configuration and of those inside it; an encoder's shape is one field."""
    leaves: dict[str, object] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value) and "architecture" in (shape := asdict(value)):  # type: ignore[arg-type]  # no class: a field's value
            kind = shape.pop("architecture")
            leaves[prefix + field.name] = f"{kind}: {', '.join(f'{name} {size}' for name, size in shape.items())}"
        elif is_dataclass(value):
            leaves |= _leaves(value, f"{prefix}{field.name}.")
        else:
            leaves[prefix + field.name] = value
    return leaves


def bundled() -> str:
    """The cards of the encoders that come with the package, a section each; their headings are one level lower."""
    cards = (bundled_folder(name) / "README.md" for name in NAMES)
    texts = (card.read_text(encoding="utf-8").split("---\n", 2)[2] for card in cards)  # without their head
    return "\n\n".join(re.sub(r"^(#+) ", r"#\1 ", text, flags=re.MULTILINE) for text in texts)


def files() -> str:
    """Tables in the files of a home: those of an arrival batch, the segment store, the split ledger."""
    return _tables("file")


def warehouse() -> str:
    """Tables, views and macros of a new warehouse, with their comments."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(schema_sql())
        macros = connection.execute(
            "SELECT function_name, comment FROM duckdb_functions() WHERE NOT internal ORDER BY ALL"
        ).fetchall()
    return "\n\n".join(
        [
            "A table of embeddings is created when its encoder's first embeddings are loaded, as wide as they are.",
            _tables("table", "view"),
            f"## Macros\n\n{table(('macro', 'meaning'), [(_code(name), comment) for name, comment in macros])}",
        ]
    )


def _tables(*kinds: str) -> str:
    """A section for each table of the given kinds: what it is, and a row for each of its columns."""
    parts = []
    for documented in documented_tables():
        if documented.kind in kinds:
            declared = documented.table
            rows = [
                (
                    _code(column.name),
                    _code(documented.type_of(column)),
                    column.unit,
                    "yes" if column.nullable else "",
                    _text(column.meaning),
                    ", ".join(map(_code, column.sources)),
                )
                for column in declared.columns
            ]
            where = f" {_code(documented.path)}." if documented.path else ""
            header = ("column", "type", "unit", "null", "meaning", "computed from")
            about = f"{documented.kind.capitalize()}.{where} {_text(declared.meaning)}."
            parts.append(f"## {_text(declared.name)}\n\n{about}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def checks() -> str:
    """Asset checks in the order of their assets."""
    specs = {spec.key: spec for definition in defs.asset_checks or () for spec in definition.check_specs}
    for asset in defs.assets or ():
        specs |= {spec.key: spec for spec in getattr(asset, "check_specs", ())}
    order = [key.to_user_string() for key in defs.resolve_asset_graph().toposorted_asset_keys]
    rows = [
        (order.index(spec.asset_key.to_user_string()), spec.asset_key.to_user_string(), spec.name, spec)
        for spec in specs.values()
    ]
    return table(
        ("asset", "check", "blocking", "passes when"),
        (
            (_code(asset), _code(name), "yes" if spec.blocking else "", spec.description)
            for _, asset, name, spec in sorted(rows, key=lambda row: row[:3])
        ),
    )


def devices() -> str:
    """The device table: a column for each device."""
    names = [field.name for field in fields(Device) if field.name != "device_id"]
    rows = ([_code(name), *(_fact(getattr(device, name)) for device in DEVICES.values())] for name in names)
    return table(("", *map(_code, DEVICES)), rows)


def _fact(value: object) -> object:
    if isinstance(value, tuple):
        return "no limit" if math.inf in value else ", ".join(f"{number:.6g}" for number in value)
    return value


def accelkd_api() -> str:
    """The public functions of accelkd."""
    return _api(accelkd) or (
        "Nothing is public so far: use the [command line](cli.md), or the modules as [Training](../training.md) "
        "and [Evaluation](../evaluation.md) show."
    )


def rust_dsp_api() -> str:
    """The public functions and classes of rust_dsp."""
    return _api(rust_dsp)


def _api(module: ModuleType) -> str:
    """Directives of mkdocstrings for what a module makes public, each where it is defined."""
    parts = []
    for name in getattr(module, "__all__", ()):
        made = getattr(module, name)
        where = f"{getattr(made, '__module__', module.__name__)}.{getattr(made, '__qualname__', name)}"
        parts.append(f"::: {where}\n    options:\n      heading_level: 3")
    return "\n\n".join(parts)


GENERATORS: Mapping[str, Callable[[], str]] = {
    function.__name__: function
    for function in (
        command_line,
        settings,
        presets,
        bundled,
        files,
        warehouse,
        checks,
        devices,
        accelkd_api,
        rust_dsp_api,
    )
}
