"""The demo's documents, and the demo itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shoal_command import call_shoal, environment

from server.cli import demo
from server.cli.demo_documents import Document, standard_library

EVERY = 8
"""One document in so many is enough to see that the demo works."""


@pytest.fixture(scope="module")
def library() -> list[Document]:
    """What is documented in the standard library; reading it takes seconds."""
    return standard_library()


def test_documents_are_named_as_they_are_imported(library: list[Document]):
    documents = {document.name: document for document in library}

    assert len(documents) > 2_000
    assert documents["json.dumps"].kind == "function"
    assert documents["pathlib.Path.resolve"].kind == "method"
    assert documents["collections.Counter"].kind == "class"
    assert documents["email.message.Message.get_payload"].module == "email.message"
    assert "get payload" in documents["email.message.Message.get_payload"].words
    assert not any("._" in name.replace(".__init__", "") for name in documents)


def test_the_demo_replaces_what_an_earlier_one_left(
    tmp_path: Path, documents: Path, library: list[Document], monkeypatch: pytest.MonkeyPatch
):
    where = ("--data-dir", tmp_path)
    # Not the same vectors, as after an update of the demo.
    earlier = call_shoal("import", documents, "--collection", "stdlib", *where)
    monkeypatch.setattr(demo, "standard_library", lambda: library[::EVERY])
    # The settings of the tester's shell name a Qdrant that is not there: it must not matter.
    settings = environment(SHOAL_QDRANT_URL="http://127.0.0.1:1")
    words = ("demo", "--method", "kmeans", "--method", "kmeans", "--top", "3", *where)
    done = call_shoal(*words, **settings)
    folders = re.findall(r"artifacts file://(\S+)", done.out)

    assert earlier.code == 0, earlier.err
    assert done.code == 0, done.err
    assert done.out.count("the 3 largest of 40 groups") == 2
    assert [Path(folder).is_dir() for folder in folders] == [False, True]


def test_the_demo_refuses_a_method_it_has_no_parameters_for(tmp_path: Path):
    done = call_shoal("demo", "--method", "optics", "--data-dir", tmp_path)

    assert done.code == 2
    assert "'optics' is not one of hdbscan, kmeans" in done.err
