"""Versions of code are versions of behaviour: rewording a comment, a docstring or an annotation makes nothing stale.

The hash is over the syntax tree of the source, serialised here field by field because `ast.dump` prints the same tree
differently in different releases of Python, and results of one are merged with results of another.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

# Annotations of a class's fields by which `dataclasses` and `typing` decide what a field is
_MARKERS = {"ClassVar", "InitVar", "KW_ONLY"}
_IGNORED = {"annotation", "returns", "type_comment", "type_params", "type_ignores", "kind", "ctx"}
_DOCUMENTATION = "meaning"  # keyword of a column or table (accelkd.home.columns)


@cache
def code_version(*names: str, exclude: tuple[str, ...] = ()) -> str:
    """16 hex digits that change with what the modules do; of a package, its modules without subpackages.

    `exclude` names modules of a package that do not count. Raises ModuleNotFoundError for an unknown name.
    """
    digest = hashlib.sha256()
    for module, source in (pair for name in names for pair in _sources(name)):
        if module not in exclude:
            digest.update(module.encode() + b"\0" + behaviour(source).encode() + b"\0")
    return digest.hexdigest()[:16]


def code_stamp(package: str) -> str:
    """A package's name with its code version, such as `accelkd.segments@0123456789abcdef`."""
    return f"{package}@{code_version(package)}"


def behaviour(source: str) -> str:
    """The syntax tree of `source` as text, without comments, docstrings, annotations and the meaning of columns.

    What an annotation determines is kept: that a class has a field, and whether it is one of the class (`ClassVar`), of
    the constructor (`InitVar`) or a keyword (`KW_ONLY`).
    """
    return _serialised(ast.parse(source))


def _sources(name: str) -> Iterator[tuple[str, str]]:
    """Module names and source texts, sorted by name."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no module {name!r} with a source text")
    if spec.submodule_search_locations is None:
        yield name, Path(spec.origin).read_text(encoding="utf-8")
        return
    for source in sorted(files(name).iterdir(), key=lambda source: source.name):
        if source.name.endswith(".py"):
            yield f"{name}.{source.name.removesuffix('.py')}", source.read_text(encoding="utf-8")


def _serialised(node: ast.AST, in_class: bool = False) -> str:
    fields = []
    for name, value in ast.iter_fields(node):
        if name in _IGNORED or value is None or value == []:
            continue
        if name == "body" and isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            value = value[1:] if ast.get_docstring(node, clean=False) is not None else value
        within = isinstance(node, ast.ClassDef) or (in_class and isinstance(node, ast.If | ast.With | ast.Try))
        fields.append(f"{name}={_value(value, within)}")
    return f"{type(node).__name__}({', '.join(fields)})"


def _value(value: object, in_class: bool) -> str:
    if isinstance(value, ast.AnnAssign):
        return _annotated(value, in_class)
    if isinstance(value, ast.keyword) and value.arg == _DOCUMENTATION:
        return ""
    if isinstance(value, ast.AST):
        return _serialised(value, in_class)
    if isinstance(value, list):
        return "[" + ", ".join(filter(None, (_value(item, in_class) for item in value))) + "]"
    return repr(value)


def _annotated(node: ast.AnnAssign, in_class: bool) -> str:
    """An annotated name: in a class a field, elsewhere an assignment, or nothing if it has no value."""
    value = "" if node.value is None else f", value={_value(node.value, False)}"
    if in_class:
        names = {part.id for part in ast.walk(node.annotation) if isinstance(part, ast.Name)}
        names |= {part.attr for part in ast.walk(node.annotation) if isinstance(part, ast.Attribute)}
        return f"Field(target={_serialised(node.target)}, marked={sorted(names & _MARKERS)}{value})"
    return f"Assign(targets=[{_serialised(node.target)}]{value})" if node.value else ""
