"""The examples of docs/clients.md that need no other tools."""

from __future__ import annotations

import shutil
import sys

import pytest
from shoal_command import Served

from tests.gateway.documents import calling, example, run
from tests.gateway.models import Cluster


def test_python(served: Served, headers: dict[str, str], done: Cluster) -> None:
    printed = run([sys.executable, "-c", example("python")], calling(served, headers))

    assert "completed write" in printed
    assert printed.count(" 50\n") == 4


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(served: Served, address: str, headers: dict[str, str], done: Cluster) -> None:
    env = calling(served, headers, SHOAL_GATEWAY=address)
    printed = run(["bash", "-ec", example("bash")], env)

    assert '"cluster_name":"by curl"' in printed
    assert '"status":"completed"' in printed
    assert printed.count('data: {"rank":') == 3
    assert "did you mean limit?" in printed
    assert '"artifacts_deleted":true' in printed
