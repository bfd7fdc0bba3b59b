"""Errors as a whole: each travels between processes, and each reason is documented."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from pathlib import Path

import pytest

import gpu
import gpu.errors
import server
from gpu.errors import ClusteringError
from server.api.errors import status_of
from server.errors import InvalidRequestError, NotFoundError, ShoalError, Violation

ERRORS_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def all_modules() -> None:
    for package in (server, gpu):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def tree(root: type[Exception]) -> list[type[Exception]]:
    return [root, *(kind for child in root.__subclasses__() for kind in tree(child))]


all_modules()
SERVER_ERRORS = sorted(
    {kind for kind in tree(ShoalError) if kind.__module__.split(".")[0] == "server"},
    key=lambda kind: kind.__name__,
)
GPU_ERRORS = sorted(set(tree(ClusteringError)), key=lambda kind: kind.__name__)


def documented() -> dict[str, str]:
    """Rows of the page: reason to the word in its second column."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([A-Z_a-z ]+?) \|", ERRORS_PAGE.read_text(), re.M)
    return dict(rows)


def test_every_reason_is_documented_with_its_status() -> None:
    expected = {
        kind.reason: status_of(kind).name for kind in SERVER_ERRORS if kind is not ShoalError
    }
    expected[ShoalError.reason] = "INTERNAL"
    told = documented()
    missing = {reason: status for reason, status in expected.items() if told.get(reason) != status}
    assert missing == {}


def test_every_reason_of_a_failed_run_is_documented() -> None:
    told = documented()
    assert [kind.reason for kind in GPU_ERRORS if told.get(kind.reason) != "run"] == []


def test_no_documented_reason_is_gone() -> None:
    known = {kind.reason for kind in [*SERVER_ERRORS, *GPU_ERRORS]}
    assert set(documented()) - known == set()


@pytest.mark.parametrize("kind", SERVER_ERRORS, ids=lambda kind: kind.__name__)
def test_errors_survive_the_way_from_a_worker(kind: type[ShoalError]) -> None:
    error = kind.__new__(kind)
    Exception.__init__(error, "what happened")
    error.message, error.facts = "what happened", {"run_id": "run_1"}
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind
    assert str(found) == "what happened"
    assert found.metadata == {"run_id": "run_1"}


def test_what_the_constructors_keep_travels_too() -> None:
    invalid = InvalidRequestError([Violation("filters", "too deep"), Violation("a", "b")])
    missing = NotFoundError("cluster", "x", "look elsewhere", hint_id=3)
    assert pickle.loads(pickle.dumps(invalid)).violations == invalid.violations
    copy = pickle.loads(pickle.dumps(missing))
    assert (copy.kind, copy.name, str(copy)) == ("cluster", "x", str(missing))


def test_every_error_says_in_its_docstring_what_happened() -> None:
    silent = [kind.__name__ for kind in [*SERVER_ERRORS, *GPU_ERRORS] if not inspect.getdoc(kind)]
    assert silent == []
