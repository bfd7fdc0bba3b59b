"""Warnings of a library, turned into notes for the caller."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_as_notes() -> Iterator[list[str]]:
    """Give a list that holds the first line of each distinct warning when the context closes."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        # numpy's and numba's warnings about how code is compiled are nothing to the caller.
        if not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning):
            notes.append(str(warning.message).strip().splitlines()[0])
    notes[:] = dict.fromkeys(notes)
