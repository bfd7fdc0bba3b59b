"""What a group is called where people read: its label, or its words where nobody named it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNNAMED = re.compile(r"Cluster \d+")
N_WORDS = 2


def name_of(label: str, keywords: Sequence[str]) -> str:
    """Give a group's name; a number says less than the words of its documents."""
    if _UNNAMED.fullmatch(label) and keywords:
        return ", ".join(keywords[:N_WORDS])
    return label
