"""How request parts are read: strict models, and faults in the contract's words."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from server.errors import Violation

Text = Annotated[str, StringConstraints(min_length=1)]


class RequestModel(BaseModel):
    """Base of request parts: strict about types and about names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def violations_of(error: ValidationError, prefix: str = "") -> list[Violation]:
    """Say pydantic's findings in the contract's form: path, what was sent, what is allowed."""
    found = []
    for item in error.errors(include_url=False):
        path = prefix + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]
        ).lstrip(".")
        sent = item.get("input")
        told = "" if item["type"] == "missing" else f" (sent: {shorten(sent)})"
        found.append(Violation(path or "request", f"{item['msg']}{told}"))
    return found


def shorten(value: Any) -> str:
    """Show a value in a message, however long it is."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 120 else text[:117] + "..."
