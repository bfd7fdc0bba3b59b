"""Write the pages that are made from the code: `contract.md` and `settings.md`.

    python docs/generate.py            writes them
    python docs/generate.py --check    fails when one is stale

They are checked in, because most readers meet them where the code is hosted. `performance.md` is
made by `benchmarks/render.py`, since it changes with measurements and not with the code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from reference import reference_of

from server.config import ClientSettings, Settings

DOCS = Path(__file__).resolve().parent
DESCRIPTOR_SET = DOCS.parent / "proto/clusters/v1/descriptor_set.binpb"

SETTINGS_INTRODUCTION = """# Settings

Written by `docs/generate.py` from the classes in `server/config.py`. All are optional. The
server's are variables, or flags of `shoal serve` where it has them (`--data-dir` for
`SHOAL_DATA_DIR`), which win. A value that cannot be used ends the process, with every fault
listed; `shoal doctor` tries what they name.
"""


def main(arguments: list[str]) -> int:
    """Write or check the pages and give the exit status."""
    pages = {
        "contract.md": reference_of(DESCRIPTOR_SET.read_bytes()),
        "settings.md": settings_page(),
    }
    stale = [
        name
        for name, text in pages.items()
        if not (DOCS / name).exists() or (DOCS / name).read_text(encoding="utf-8") != text
    ]
    if "--check" not in arguments:
        for name in stale:
            (DOCS / name).write_text(pages[name], encoding="utf-8")
    elif stale:
        names = ", ".join(f"docs/{name}" for name in stale)
        sys.stderr.write(f"stale: {names}\nrun `make proto` and commit the result\n")
        return 1
    return 0


def settings_page() -> str:
    """Give every setting with what it may be and its default."""
    lines = [SETTINGS_INTRODUCTION]
    for title, settings in (
        ("Of the server", Settings),
        ("Of client commands", ClientSettings),
    ):
        lines += [f"## {title}", "", "| variable | takes | default | what |", "|---|---|---|---|"]
        for name, field in settings.model_fields.items():
            cells = [
                f"`SHOAL_{name.upper()}`",
                _takes(field),
                _default(field),
                field.description or "",
            ]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def _takes(field: FieldInfo) -> str:
    """Say what values a setting takes: the words of a choice, or a kind with its bounds."""
    kind: Any = field.annotation
    options = [part for part in get_args(kind) if part is not type(None)]
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in options)
    if get_origin(kind) is not dict and options:
        kind = options[0]
    words = {bool: "true, false", int: "whole number", float: "number", Path: "path"}
    return " ".join(
        [words.get(kind, "JSON" if get_origin(kind) is dict else "text"), *_bounds(field)]
    )


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge(ge=least):
                yield f"from {least}"
            case annotated_types.Gt(gt=least):
                yield f"above {least}"
            case annotated_types.Le(le=most):
                yield f"to {most}"


def _default(field: FieldInfo) -> str:
    more = field.json_schema_extra
    if isinstance(more, dict) and "default" in more:  # It depends on the machine.
        return str(more["default"])
    value = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, bool | float):
        return f"`{json.dumps(value).removesuffix('.0')}`"
    return f"`{str(value).replace(str(Path.home()), '~')}`"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
