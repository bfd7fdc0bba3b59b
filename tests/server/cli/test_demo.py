"""The demo's documents, and the demo itself."""

from __future__ import annotations

import re
from pathlib import Path

from shoal_command import run_shoal

from server.cli.demo_documents import standard_library


def test_documents_are_named_as_they_are_imported():
    documents = {document.name: document for document in standard_library()}

    assert len(documents) > 2_000
    assert documents["json.dumps"].kind == "function"
    assert documents["pathlib.Path.resolve"].kind == "method"
    assert documents["collections.Counter"].kind == "class"
    assert documents["email.message.Message.get_payload"].module == "email.message"
    assert "get payload" in documents["email.message.Message.get_payload"].words
    assert not any("._" in name.replace(".__init__", "") for name in documents)


def test_the_demo_runs_twice_in_the_same_place(tmp_path: Path):
    words = ("demo", "--method", "kmeans", "--top", "3", "--data-dir", tmp_path)
    # The settings of the tester's shell name a Qdrant that is not there: it must not matter.
    first, second = (run_shoal(*words, SHOAL_QDRANT_URL="http://127.0.0.1:1") for _ in range(2))

    for done in (first, second):
        assert done.code == 0, done.err
        assert "the 3 largest of 40 groups" in done.out
        folder = re.search(r"artifacts file://(\S+)", done.out)
        assert folder is not None
    assert Path(folder[1]).is_dir()
    assert len(list((tmp_path / "artifacts").glob("*/clust_*"))) == 1


def test_the_demo_refuses_a_method_it_has_no_parameters_for(tmp_path: Path):
    done = run_shoal("demo", "--method", "optics", "--data-dir", tmp_path)

    assert done.code == 2
    assert "'optics' is not one of hdbscan, kmeans" in done.err
