"""The commands that the pages show are there, with the options that they are shown with."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from server.cli.main import app
from tests.docs.conftest import DOCS

PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]


def shown_commands(page: Path) -> list[list[str]]:
    """Give the words of each `shoal …` line in the page's blocks of code."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [re.match(r"(?:\.venv/bin/)?shoal (.*)", line) for line in lines]
    return [shlex.split(found[1], comments=True) for found in commands if found]


def fault_of(words: list[str]) -> str | None:
    """Say what of a command there is not."""
    command: Any = typer.main.get_command(app)
    for word in words:
        if not hasattr(command, "commands"):
            break
        if word not in command.commands:
            return word
        command = command.commands[word]
    known = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("--") and word not in known]
    return " ".join(unknown) or None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_a_page_shows_are_there(page: Path):
    assert [(words, fault) for words in shown_commands(page) if (fault := fault_of(words))] == []


def test_the_pages_show_many_commands_and_a_misspelt_one_would_be_told():
    assert sum(len(shown_commands(page)) for page in PAGES) > 30
    assert fault_of(["runn", "--collection", "docs"]) == "runn"
    assert fault_of(["run", "--colection", "docs"]) == "--colection"
    assert fault_of(["keys", "create", "--role", "write"]) is None
