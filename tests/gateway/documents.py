"""The examples of the documentation, as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from shoal_command import ROOT, Served, environment

CLIENTS = ROOT / "docs/clients.md"
TOOLS = ROOT / ".tools/bin"


def example(info: str, document: Path = CLIENTS) -> str:
    """Give the one code block with this info string."""
    blocks = re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", document.read_text(), re.M | re.S)
    (found,) = blocks
    return found


def calling(served: Served, headers: dict[str, str], **more: str) -> dict[str, str]:
    """Give the environment in which an example calls a server."""
    names = environment(
        SHOAL_SERVER=served.address,
        SHOAL_KEY=headers["Authorization"].removeprefix("Bearer "),
        SHOAL_NAMESPACE=headers["X-Namespace"],
        **more,
    )
    return names | {"PATH": os.pathsep.join([str(TOOLS), names["PATH"]])}


def run(command: list[str], env: dict[str, str], cwd: Path | None = None) -> str:
    """Run an example to its end, and give what it printed."""
    done = subprocess.run(
        command, env=env, cwd=cwd, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
