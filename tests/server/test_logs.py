"""Log lines: their fields, their two forms, and what never stands in them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from server import logs
from server.config import load_settings
from server.logs import LogSettings

log = logging.getLogger("tests.logs")


Written = Callable[[], str]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """Gives what was logged; the root logger is put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield lambda: capsys.readouterr().err
    root.handlers, root.level = handlers, level


def test_a_json_line_has_its_fields_and_its_exception(written: Written) -> None:
    logs.configure(LogSettings(format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed: %s", "why", extra={"error_id": "err_1", "nothing": None})

    (line,) = written().splitlines()
    body = json.loads(line)
    assert (body["level"], body["logger"]) == ("ERROR", "tests.logs")
    assert (body["message"], body["error_id"]) == ("it failed: why", "err_1")
    assert "ValueError: two\nlines" in body["exception"]
    assert "nothing" not in body


@pytest.mark.parametrize("form", ["text", "json"])
async def test_what_a_task_binds_stands_on_its_lines_and_no_others(
    written: Written, form: logs.LogFormat
) -> None:
    logs.configure(LogSettings(format=form))

    async def work(run_id: str) -> None:
        logs.bind(run_id=run_id)
        await asyncio.sleep(0)
        await asyncio.to_thread(log.warning, "in the thread of %s", run_id)

    await asyncio.gather(work("run_a"), work("run_b"))
    log.warning("outside")

    lines = sorted(written().splitlines())
    of = {run: [line for line in lines if line.count(run) == 2] for run in ("run_a", "run_b")}
    assert [len(found) for found in of.values()] == [1, 1]
    assert sum("run_id" in line for line in lines) == 2


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_of_the_settings_and_keys_are_hidden(
    written: Written, form: logs.LogFormat
) -> None:
    settings = load_settings(
        log_format=form,
        mongodb_uri="mongodb://me:p%40ssword@db:27017",
        qdrant_api_key="qdrant-secret",
        llm_api_key="abc",
    )
    logs.configure(settings.logs)
    key = "sk_" + "k" * 43
    log.error("mongodb://me:p%%40ssword@db, p@ssword, qdrant-secret, %s, abc", key)

    text = written()
    for secret in ("p%40ssword", "p@ssword", "qdrant-secret", key):
        assert secret not in text
    assert "abc" in text  # Too short to tell from ordinary words.


def test_libraries_are_quiet_but_when_debugging(written: Written) -> None:
    logs.configure(LogSettings(level="INFO"))
    assert logging.getLogger("distributed").level == logging.WARNING
    logs.configure(LogSettings(level="ERROR"))
    assert logging.getLogger("distributed").level == logging.ERROR
