from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from server.labeling.cache import LabelCache, content_key
from server.labeling.replies import Reply, Wanted

WANTED = Wanted()
REPLY = Reply("Fruit", "About fruit.", ("apple",))
KEY = content_key({"model": "m", "samples": ["x"]})


def only_file(folder: Path) -> Path:
    (path,) = folder.rglob("*.json")
    return path


def test_a_kept_reply_comes_back_until_it_is_too_old(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path / "new" / "folder")
    missing = cache.get(KEY, WANTED, 60)
    cache.put(KEY, REPLY, 60)

    assert missing is None
    assert LabelCache(tmp_path / "new" / "folder").get(KEY, WANTED, 60) == REPLY
    assert cache.get(KEY, WANTED, 0) is None

    path = only_file(tmp_path)
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "stored_at": time.time() - 61}))
    assert cache.get(KEY, WANTED, 60) is None
    assert cache.get(KEY, WANTED, 120) == REPLY


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"stored_at": "x", "reply": {}}',
        b'{"stored_at": 1e18, "reply": {"label": "bad\\u0000", "summary": "s", "keywords": []}}',
        b'{"stored_at": 1, "reply": {"summary": "no label", "keywords": []}}',
    ],
)
def test_a_corrupt_entry_is_ignored_and_logged(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    cache = LabelCache(tmp_path)
    cache.put(KEY, REPLY, 60)
    only_file(tmp_path).write_bytes(content)

    with caplog.at_level(logging.WARNING):
        found = cache.get(KEY, WANTED, 60)
    cache.put(KEY, REPLY, 60)

    assert found is None
    assert KEY in caplog.text
    assert cache.get(KEY, WANTED, 60) == REPLY


def test_a_folder_that_cannot_be_written_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")

    LabelCache(tmp_path / "file").put(KEY, REPLY, 60)

    assert "could not be kept" in caplog.text


def test_sweeping_removes_what_expired_and_what_was_left_behind(tmp_path: Path) -> None:
    cache = LabelCache(tmp_path)
    cache.put(KEY, REPLY, 60)
    cache.put(content_key({"other": 1}), REPLY, -1)
    folder = only_file_of(tmp_path, KEY).parent
    for name, age_s in (("old.tmp", 7200), ("new.tmp", 10)):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    (folder / "notes.txt").touch()
    os.utime(folder / "notes.txt", (0, 0))

    assert cache.sweep() == 2
    assert sorted(p.name for p in tmp_path.glob("*/*")) == sorted(
        [f"{KEY}.json", "new.tmp", "notes.txt"]
    )
    assert cache.get(KEY, WANTED, 60) == REPLY


def only_file_of(folder: Path, key: str) -> Path:
    (path,) = folder.rglob(f"{key}.json")
    return path


def write_and_read(folder: str, writer: int) -> int:
    """Write and read one entry many times; give how many reads were not whole."""
    cache = LabelCache(folder)
    n_bad = 0
    for turn in range(100):
        cache.put(KEY, Reply(f"Label {writer}", "s" * 400, (str(turn),) * 1), 60)
        found = cache.get(KEY, WANTED, 60)
        n_bad += found is None or not found.label.startswith("Label ")
    return n_bad


def test_processes_may_share_a_folder(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        bad = pool.starmap(write_and_read, [(str(tmp_path), 1), (str(tmp_path), 2)])

    assert bad == [0, 0]
    assert [p.suffix for p in tmp_path.glob("*/*")] == [".json"]


def test_keys_tell_contents_apart_and_not_their_order() -> None:
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key({"a": ["x", "y"]}) != content_key({"a": ["xy"]})
    assert len(content_key({})) == 64
