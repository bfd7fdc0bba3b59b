"""Where a run's time went, as `shoal get --timings` draws it."""

from __future__ import annotations

import io

from clusters.v1 import execution_pb2
from google.protobuf import json_format
from rich.console import Console

from server.cli.timeline import bar, timings_table


def drawn(**fields) -> list[str]:
    """Give the lines of the stages."""
    console = Console(width=100, file=io.StringIO())
    console.print(timings_table(json_format.ParseDict(fields, execution_pb2.Execution())))
    lines = console.file.getvalue().rstrip().splitlines()
    return [line.rstrip() for line in lines if line.strip()][2:]


def test_stages_stand_in_their_order_with_what_went_side_by_side():
    lines = drawn(
        execution_time_seconds=4.0,
        timings={"publish": 1, "export": 1, "summarize": 1.5, "label": 1.5},
        timeline={
            "export": [[0, 1]],
            "summarize": [[1, 1.5], [1.5, 2.5]],
            "label": [[1.5, 3]],
            "publish": [[3, 4]],
        },
    )
    assert [line.split()[:4:2] for line in lines] == [
        ["export", "s"], ["summarize", "s"], ["label", "s"], ["publish", "s"],
    ]  # fmt: skip
    assert [line.split()[1] for line in lines] == ["0.00", "1.00", "1.50", "3.00"]
    bars = [[at for at, character in enumerate(line) if character == "━"] for line in lines]
    assert [len(of_stage) for of_stage in bars] == [10, 15, 15, 10]
    assert [of_stage[0] - bars[0][0] for of_stage in bars] == [0, 10, 15, 30]


def test_a_run_that_noted_no_moments_has_seconds_alone():
    lines = drawn(execution_time_seconds=2.0, timings={"export": 0.5, "cluster": 1.25})
    assert [line.split() for line in lines] == [["export", "0.50", "s"], ["cluster", "1.25", "s"]]


def test_a_bar_has_a_column_for_what_is_short_and_stays_within():
    assert bar([[0, 0.001]], 10, width=10) == "━"
    assert bar([[10, 10]], 10, width=10) == " " * 9 + "━"
    assert bar([[0, 1], [9, 10]], 10, width=10) == "━" + " " * 8 + "━"
    assert bar([[0, 0]], 0, width=10) == "━"
