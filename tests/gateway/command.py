"""`shoal gateway` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal_command import COMMAND, environment

from tests.gateway.rest import until_ready


@contextmanager
def gateway_command(
    upstream: str, listen: str = "127.0.0.1:0"
) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """Run the command until the block ends; give its process and what it said."""
    words = ["gateway", "--json", "--listen", listen, "--upstream", upstream]
    process = subprocess.Popen(
        [*COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stdout is not None
    try:
        facts = json.loads(process.stdout.readline())
        until_ready(facts["address"], process, Path("/dev/null"))
        yield process, facts
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
