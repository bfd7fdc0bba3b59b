"""Loops that NumPy has no call for, compiled to machine code once for an installation.

NumPy walks an array once for each operation; the loops marked `compiled` walk it once for all of
them, while it is in the cache. They hold no lock of Python's, so our own threads
(`gpu.parallel`) run them side by side; none starts threads of its own.

The code is kept beside the source, or in the user's cache where that cannot be written;
``make setup`` compiles ahead (`gpu.warm`), so that loading it is all a new process pays.
Arrays must be finite or infinite, never NaN: comparisons are compiled as if there were none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_ASSUMPTIONS = {"nnan", "nsz", "contract", "reassoc"}
"""No NaN, no negative zero, and sums in any order: what vector instructions need."""


def compiled(function: Function) -> Function:
    """Mark a loop over arrays to be compiled at its first call."""
    return cast(Function, _Loop(function))


class _Loop:
    """A function that numba compiles late, since importing `gpu` must load nothing heavy."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        return self.machine_code(*arguments)

    @cached_property
    def machine_code(self) -> Callable[..., Any]:
        """Give what numba calls."""
        import numba

        # numba looks up what the loop calls among its module's names, and knows only its own.
        names = self._function.__globals__
        for name in self._function.__code__.co_names:
            if isinstance(names.get(name), _Loop):
                names[name] = names[name].machine_code
        options: dict[str, Any] = {"nogil": True, "fastmath": _ASSUMPTIONS}
        try:
            return cast(Callable[..., Any], numba.njit(**options, cache=True)(self._function))
        except RuntimeError:  # Nowhere to keep it: then every process compiles its own.
            return cast(Callable[..., Any], numba.njit(**options)(self._function))
