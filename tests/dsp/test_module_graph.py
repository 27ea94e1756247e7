"""The modules of each Rust crate form a graph without cycles: what two modules share is in a third."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

RUST_DSP = Path(__file__).parents[2] / "rust_dsp"
COMMENT = re.compile(r"//[^\n]*")
CONSTANT = re.compile(r"\bpub const (\w+)")
BRACES = re.compile(r"\{[^{}]*\}")
PATH = re.compile(r"\b(crate|super)::(\w+)")
GROUP = re.compile(r"\b(crate|super)::\{((?:[^{}]|\{[^{}]*\})*)\}")  # of paths, with groups inside
FIRST_NAME = re.compile(r"(?:^|,)\s*(\w+)")


def references(file: Path) -> set[tuple[str, str]]:
    """(`crate` or `super`, the name that follows it) of all paths in a source file, in `use` lines and elsewhere."""
    code = COMMENT.sub("", file.read_text(encoding="utf-8"))
    names = set(PATH.findall(code))
    groups = GROUP.findall(code)
    assert len(groups) == len(re.findall(r"\b(?:crate|super)::\{", code)), f"{file}: groups nest too deeply to be read"
    for root, group in groups:
        names |= {(root, name) for name in FIRST_NAME.findall(BRACES.sub("", group))}
    return names


@pytest.mark.parametrize("crate", ["core", "python"])
def test_the_module_graph_is_acyclic(crate: str) -> None:
    root = RUST_DSP / crate / "src"
    files = {file: file.relative_to(root).parts[0].removesuffix(".rs") for file in root.rglob("*.rs")}
    modules = set(files.values()) - {"lib"}  # submodules are part of their parent
    constants = set(CONSTANT.findall((root / "lib.rs").read_text(encoding="utf-8")))
    assert len(modules) > 2
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for file, module in files.items():
        if module == "lib":
            continue
        names = references(file)
        graph[module] |= {name for _, name in names} & modules - {module}
        # A re-export of the root, as in `crate::Samples`, would hide an edge
        assert {name for start, name in names if start == "crate"} <= modules | constants, file
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle
