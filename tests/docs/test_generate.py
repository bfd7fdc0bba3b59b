"""The pages that are made from the code are fresh, and hold what they are made from."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from reference import escaped

from server.config import ClientSettings, Settings
from tests.docs.conftest import DOCS

PROTO = DOCS.parent / "proto"


Ended = subprocess.CompletedProcess[str]


def generate(*options: str, script: Path = DOCS / "generate.py") -> Ended:
    command = [sys.executable, str(script), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rows_of(page: str) -> dict[str, list[str]]:
    """Give the cells of each row of a page's tables by the name in its first cell."""
    text = (DOCS / page).read_text()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:3] == "| `"]
    return {row[0].strip(" `"): [cell.strip() for cell in row[1:]] for row in rows}


def test_the_pages_are_fresh():
    done = generate("--check")

    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_named(tmp_path: Path):
    (tmp_path / "docs").mkdir()
    for name in ("generate.py", "contract.md", "settings.md"):
        shutil.copy(DOCS / name, tmp_path / "docs")
    shutil.copytree(PROTO, tmp_path / "proto")
    script = tmp_path / "docs/generate.py"
    (tmp_path / "docs/settings.md").write_text("# Settings\n")

    stale = generate("--check", script=script)
    generate(script=script)

    assert stale.returncode == 1
    assert "docs/settings.md" in stale.stderr
    assert "docs/contract.md" not in stale.stderr
    assert generate("--check", script=script).returncode == 0


def test_every_setting_has_what_it_takes_its_default_and_words():
    rows = rows_of("settings.md")
    fields = [*Settings.model_fields, *ClientSettings.model_fields]

    assert list(rows) == [f"SHOAL_{name.upper()}" for name in fields]
    assert [name for name, cells in rows.items() if not (cells[0] and cells[2])] == []
    assert rows["SHOAL_LEASE_S"][:2] == ["number above 0", "`30`"]
    assert rows["SHOAL_DEVICE"][:2] == ["`auto`, `gpu`, `cpu`", "`auto`"]
    assert rows["SHOAL_KEEP_RUNS"][:2] == ["whole number from 1 to 50", "`3`"]
    assert rows["SHOAL_DATA_DIR"][1] == "`~/.local/share/shoal`"  # No path of one machine.
    assert rows["SHOAL_THREADS"][1] == "all cores"


@pytest.fixture(scope="module")
def own_files() -> list[descriptor_pb2.FileDescriptorProto]:
    content = (PROTO / "clusters/v1/descriptor_set.binpb").read_bytes()
    files = descriptor_pb2.FileDescriptorSet.FromString(content).file
    return [file for file in files if file.package == "clusters.v1"]


def test_the_contract_has_every_call_message_and_field(own_files):
    text = (DOCS / "contract.md").read_text()
    sections = {part.split("\n", 1)[0]: part for part in text.split("\n### ")[1:]}
    calls = [m.name for file in own_files for s in file.service for m in s.method]
    messages = [message for file in own_files for message in file.message_type]

    assert sorted(sections) == sorted([*calls, *(message.name for message in messages)])
    assert [name for name in calls if " /v1/" not in sections[name]] == []
    for message in messages:
        named = re.findall(r"^\| `(\w+)` \| \S.*? \| \S", sections[message.name], re.M)
        assert named == [field.name for field in message.field], message.name
    assert "`GET /v1/clusters`" in sections["ListClusters"]
    assert "stream of [ExecutionEvent](#executionevent)" in sections["WatchExecution"]
    assert "| `by_status` | map of string to uint32 |" in sections["ListStats"]


def test_comments_are_shown_as_they_were_written():
    assert escaped("[A-Z][._-]* a|b <x> _c_ d_e `[f_|]`") == (
        r"\[A-Z\]\[.\_-\]\* a\|b \<x\> \_c\_ d_e `[f_\|]`"
    )
