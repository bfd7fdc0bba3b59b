"""`proto/generate.py`: its checks pass on what is checked in, and fail on what they are for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def generate(proto_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the script of `proto_dir`."""
    command = [sys.executable, str(proto_dir / "generate.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def a_copy(proto_dir: Path, tmp_path: Path) -> Path:
    """Return a copy of the protos that a test may spoil."""
    copy = tmp_path / "proto"
    shutil.copytree(proto_dir, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def replace(path: Path, old: str, new: str) -> None:
    """Replace the one place where `old` stands."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_what_is_checked_in_is_fresh_and_clean(proto_dir: Path) -> None:
    done = generate(proto_dir, "--check", "--lint")

    assert done.returncode == 0, done.stderr


def test_a_renamed_field_is_a_breaking_change_until_accepted(a_copy: Path) -> None:
    replace(a_copy / "clusters/v1/list.proto", "string field = 1", "string column = 1")

    before = generate(a_copy, "--lint")
    accepted = generate(a_copy, "--update-baseline")
    after = generate(a_copy, "--lint")

    assert before.returncode == 1
    assert "buf breaking" in before.stderr
    assert '"field" to "column"' in before.stderr
    assert "buf lint" not in before.stderr
    assert (accepted.returncode, after.returncode) == (0, 0)


def test_a_removed_file_is_a_breaking_change(a_copy: Path) -> None:
    (a_copy / "clusters/v1/task_service.proto").unlink()

    done = generate(a_copy, "--lint")

    assert done.returncode == 1
    assert "task_service.proto" in done.stderr


def test_a_new_field_is_stale_but_not_breaking(a_copy: Path) -> None:
    path = a_copy / "clusters/v1/list.proto"
    replace(
        path,
        "optional string direction = 2;",
        "optional string direction = 2;\n  // Which come first.\n  optional string nulls = 3;",
    )

    lint, check = generate(a_copy, "--lint"), generate(a_copy, "--check")
    made, again = generate(a_copy), generate(a_copy, "--check")

    assert lint.returncode == 0, lint.stderr
    assert check.returncode == 1
    assert "list_pb2.py" in check.stderr
    assert "descriptor_set.binpb" in check.stderr
    assert (made.returncode, again.returncode) == (0, 0)


def test_stubs_of_a_removed_proto_are_stale(a_copy: Path) -> None:
    (a_copy / "clusters/v1/old_pb2.py").write_text("")

    done = generate(a_copy, "--check")

    assert done.returncode == 1
    assert "old_pb2.py" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("  // The page of this answer, counted from 1.\n", "", "comment"),
        ("uint32 page_size = 3;", "uint32   page_size = 3;", "buf format"),
        ("string field = 1", "string sortField = 1", "lower_snake_case"),
    ],
)
def test_lint_finds_faults_of_style(a_copy: Path, old: str, new: str, finding: str) -> None:
    replace(a_copy / "clusters/v1/list.proto", old, new)

    done = generate(a_copy, "--lint")

    assert done.returncode == 1
    assert finding in done.stderr


def test_a_proto_that_does_not_compile_is_reported_with_its_place(a_copy: Path) -> None:
    replace(a_copy / "clusters/v1/list.proto", "string field = 1;", "strnig field = 1;")

    done = generate(a_copy)

    assert done.returncode == 1
    assert "list.proto" in done.stderr
    assert "strnig" in done.stderr


def test_every_lint_exception_has_its_reason(proto_dir: Path) -> None:
    lines = (proto_dir / "buf.yaml").read_text().splitlines()
    start, end = lines.index("  except:"), lines.index("breaking:")

    exceptions = [i for i in range(start + 1, end) if lines[i].strip().startswith("- ")]

    assert exceptions
    assert all(lines[i - 1].strip().startswith("#") for i in exceptions)
