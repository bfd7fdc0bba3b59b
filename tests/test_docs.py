"""The pages of docs/ name what there is: tests, metrics, checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from server.config import ClientSettings, Settings
from server.metrics import Metrics

ROOT = Path(__file__).resolve().parent.parent


def names_of_tests(path: Path) -> set[str]:
    """Give the names of a file's test functions."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_that_the_threat_table_names_exists() -> None:
    text = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not (ROOT / file).is_file() or name not in names_of_tests(ROOT / file)
    ]
    assert missing == []
    assert len(named) > 30


def test_every_threat_has_a_test() -> None:
    table = (ROOT / "docs" / "security.md").read_text().partition("## Threats")[2]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert [row for row in rows if "::test_" not in row] == []


def test_the_operations_page_names_every_metric_and_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    told = {name.removesuffix("_total") for name in re.findall(r"^\| `(shoal_[a-z_]+)", text, re.M)}
    assert told == {family.name for family in Metrics().registry.collect()}


def test_the_operations_page_names_no_setting_that_is_not_there() -> None:
    known = {f"SHOAL_{n.upper()}" for n in [*Settings.model_fields, *ClientSettings.model_fields]}
    for page in ("operations.md", "security.md"):
        named = set(re.findall(r"SHOAL_[A-Z_]+[A-Z]", (ROOT / "docs" / page).read_text()))
        assert named - known == set(), page
