"""Ids: a prefix that says what it names, then letters and digits only (contract, section 2)."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_lowercase + string.digits
_LENGTH = 20  # 36**20 is more than 2**103: no two servers will meet.


def new_id(prefix: str) -> str:
    """Make an id such as ``clust_8x0v…`` that nobody can guess."""
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def short_id(full_id: str) -> str:
    """Give the last six characters, for names that people read."""
    return full_id[-6:]
