"""What strangers' texts look like on a terminal, and numbers in JSON."""

from __future__ import annotations

from clusters.v1 import execution_pb2

from server.api.convert.values import struct_of
from server.cli.console import as_json, printable, shortened


def test_escape_sequences_of_documents_do_not_reach_the_terminal():
    shown = printable("a\x1b[2Jb\nc\u202ed")

    assert shown == "a\ufffd[2Jb c\ufffdd"


def test_long_texts_are_cut_and_say_so():
    assert shortened("  a   b ", 10) == "a b"
    assert shortened("abcdefghij", 5) == "abcd…"


def test_json_keeps_whole_numbers_and_empty_lists():
    execution = execution_pb2.Execution(effective_params=struct_of({"k": 8, "tol": 0.5}))
    body = as_json(execution)

    assert body["effective_params"] == {"k": 8, "tol": 0.5}
    assert isinstance(body["effective_params"]["k"], int)
    assert body["warnings"] == []
