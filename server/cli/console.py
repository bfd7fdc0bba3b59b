"""Where output goes and how it looks: consoles, tables, JSON."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

WIDEST_CELL = 28
"""Most columns of a terminal for a cell beside the last, in a table that is cut."""

GAP = 3
"""Columns between two cells."""

PIPE_WIDTH = 200
"""Columns of output that is no terminal: wide, so that nothing is cut for a script."""


def stdout() -> Console:
    """Give a console on standard output. Text is shown as it is, never read as markup."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(markup=False, highlight=False, emoji=False, width=width)


def stderr() -> Console:
    """Give the same on standard error, wrapped only by the terminal."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def say(line: str, style: str | None = None) -> None:
    """Print one line to standard output."""
    stdout().print(line, style=style, soft_wrap=True)


def printable(text: str) -> str:
    """Make a stranger's text safe to show: one line, no control or formatting characters.

    Payloads and labels are data of others; an escape sequence in one must not reach the
    terminal.
    """
    return "".join(
        " "
        if character.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in ("Cc", "Cf", "Cs")
        else character
        for character in text
    )


def shortened(text: str, limit: int) -> str:
    """Give a printable text of at most `limit` characters."""
    line = " ".join(printable(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[int] = (),
    is_cut: bool = False,
) -> Table:
    """Lay out rows; the columns whose positions are in `right` hold numbers.

    The last column goes on below itself where it is too narrow; with `is_cut` a terminal shows
    the beginning of what has no room.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    layout = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    widths = _widths(headings, cells) if is_cut and sys.stdout.isatty() else None
    for position, heading in enumerate(headings):
        is_last = position == len(headings) - 1
        layout.add_column(
            heading,
            justify="right" if position in right else "left",
            no_wrap=widths is not None or not is_last,
            overflow="fold" if is_last and widths is None else "ellipsis",
            width=None if widths is None else widths[position],
        )
    for row in cells:
        layout.add_row(*row)
    return layout


def _widths(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Share a terminal's columns: the last of a table gets what the others leave."""
    columns = zip(headings, *rows, strict=True)
    widths = [min(WIDEST_CELL, max(map(cell_len, column))) for column in columns]
    left = stdout().width - sum(widths[:-1]) - GAP * len(widths)
    return [*widths[:-1], max(GAP, left)]


def as_json(message: Message) -> dict[str, Any]:
    """Give a message as JSON under its own field names, empty lists and zeros included."""
    body: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    whole: dict[str, Any] = _with_ints(body)
    return whole


def _with_ints(value: Any) -> Any:
    """Show whole numbers as such: a Struct carries the 8 that was sent as 8.0."""
    if isinstance(value, dict):
        return {name: _with_ints(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_ints(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def print_json(body: Mapping[str, Any] | Sequence[Any], *, indent: int | None = 2) -> None:
    """Print JSON to standard output."""
    sys.stdout.write(json.dumps(body, indent=indent, ensure_ascii=False) + "\n")
    sys.stdout.flush()
