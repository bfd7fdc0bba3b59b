"""What a check finds, and how checks are run: side by side, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from server.errors import ShoalError

CHECK_TIMEOUT_S = 60.0
"""Workers and an embedded Qdrant that start for the first time take seconds, not minutes."""

State = Literal["ok", "warning", "fault", "off"]


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    state : {"ok", "warning", "fault", "off"}
        off: the settings do not ask for it. A server with a fault cannot do its work.
    told : str
        What there is, or what is wrong.
    advice : str
        What to do about it; empty where there is nothing to do.
    """

    check: str
    state: State
    told: str
    advice: str = ""


Check = Callable[[], Awaitable[Sequence[Finding]]]


async def run_checks(checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """Run the checks side by side; one that fails or hangs is a finding, not an error."""
    found = await asyncio.gather(*(_run(name, check) for name, check in checks))
    return [finding for part in found for finding in part]


async def _run(name: str, check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check()
    except TimeoutError:
        return [Finding(name, "fault", f"no answer within {CHECK_TIMEOUT_S:g} s")]
    except ShoalError as error:
        return [Finding(name, "fault", error.message)]
    except Exception as error:  # What no check foresaw is what an operator most wants to see.
        return [Finding(name, "fault", f"{type(error).__name__}: {error}")]
