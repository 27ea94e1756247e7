"""The threat model names tests that exist."""

from __future__ import annotations

import re

from tests.support import REPOSITORY


def test_every_test_that_the_threat_model_names_exists() -> None:
    model = (REPOSITORY / "docs/security.md").read_text(encoding="utf-8")
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("test_*.py"))
    functions = re.findall(r"`(test_\w+)`", model)
    modules = re.findall(r"`(tests/[\w/]+\.py)`", model)
    assert len(functions) > 10
    assert [name for name in functions if f"def {name}(" not in sources] == []
    assert [path for path in modules if not (REPOSITORY / path).is_file()] == []
