"""The page on reliability: every test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "explanation" / "reliability.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "---" not in line]
NAMED = set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE))


def names_in(path: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    return {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 20
    assert {(path, name) for path, name in NAMED if name not in names_in(path)} == set()


def test_every_row_of_what_is_survived_names_a_test() -> None:
    rows = [line for line in ROWS if line.count("|") == 5][1:]
    assert len(rows) > 20
    assert [row for row in rows if ".py::" not in row] == []
