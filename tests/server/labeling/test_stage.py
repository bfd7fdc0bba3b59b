"""From an export's files to names, with the real keywords and a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpu.keywords import distinctive_words
from server.labeling.documents import payloads_at, texts_at
from server.labeling.representatives import members_by_distance
from server.labeling.request import LLMLabeling
from server.labeling.settings import LabelingSettings
from server.labeling.stage import name_groups
from tests.server.labeling.chat_server import ChatServer

TITLES = ["red apple", "ripe apple", "fast boat", "big boat", "stray", "old boat"]
LABELS = np.array([0, 0, 1, 1, -1, 1])
DISTANCES = np.array([0.2, 0.1, 0.3, 0.1, 0.0, 0.2])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Two parts, the second beginning inside the second group."""
    payloads = [json.dumps({"title": t, "cluster_label": "Old name"}) for t in TITLES]
    paths = []
    for number, part in enumerate((payloads[:3], [*payloads[3:5], payloads[5]])):
        path = tmp_path / f"part-{number}.parquet"
        pq.write_table(pa.table({"payload": part}), path)
        paths.append(str(path))
    return paths


def config(**changes: Any) -> LLMLabeling:
    mapping = {"input_key": "title", "path": "title"}
    inputs = {"labeling_inputs": {"input_mappings": [mapping]}}
    return LLMLabeling.model_validate({"enabled": True, **inputs, **changes})


def name(files: list[str], config: LLMLabeling, settings: LabelingSettings, **options: Any) -> Any:
    members = members_by_distance(LABELS, DISTANCES, 2)
    return name_groups(
        files, members, config, settings, distinctive_words=distinctive_words, **options
    )


def test_the_model_sees_the_nearest_documents_of_each_group(
    files: list[str], chat: ChatServer, settings: LabelingSettings
) -> None:
    report = name(files, config(max_samples_per_cluster=2), settings)

    assert [name.label for name in report.names] == ["About ripe apple", "About big boat"]
    assert [request.documents for request in chat.received] == [
        [{"title": "ripe apple"}, {"title": "red apple"}],
        [{"title": "big boat"}, {"title": "old boat"}],
    ]
    assert report.warnings == []


def test_without_a_model_groups_have_their_own_words(
    files: list[str], chat: ChatServer, settings: LabelingSettings
) -> None:
    report = name(files, config(enabled=False), settings)

    assert [name.label for name in report.names] == ["Cluster 0", "Cluster 1"]
    assert report.names[0].keywords == ("apple", "red", "ripe")
    assert report.names[1].keywords[0] == "boat"
    assert report.usage["requests"] == 0
    assert chat.received == []


def test_a_path_in_no_document_is_a_warning_and_asks_nothing(
    files: list[str], chat: ChatServer, settings: LabelingSettings
) -> None:
    nowhere = {"input_mappings": [{"input_key": "t", "path": "meta.titel"}]}

    report = name(files, config(labeling_inputs=nowhere), settings)

    assert [name.label for name in report.names] == ["Cluster 0", "Cluster 1"]
    assert "'meta.titel' is in none of the 5 documents" in report.warnings[0]
    assert "no model was asked: groups cl_0, cl_1" in report.warnings[1]
    assert report.errors == []
    assert chat.received == []


def test_the_whole_payload_is_read_less_what_enrichment_wrote(
    files: list[str], chat: ChatServer, settings: LabelingSettings
) -> None:
    whole = config(labeling_inputs={})

    report = name(files, whole, settings, exclude={"cluster_label"})

    assert chat.received[0].documents[0] == {"document": '{"title": "ripe apple"}'}
    assert report.errors == []
    assert "old" not in report.names[0].keywords


def test_no_groups_and_no_documents(chat: ChatServer, settings: LabelingSettings) -> None:
    report = name_groups([], [], config(), settings, distinctive_words=distinctive_words)

    assert report.names == []
    assert report.warnings == []


def test_rows_are_numbered_through_all_parts(files: list[str]) -> None:
    found = dict(payloads_at(files, np.array([0, 2, 3, 5])))

    assert {row: payload["title"] for row, payload in found.items()} == {
        row: TITLES[row] for row in (0, 2, 3, 5)
    }
    texts, numbers = texts_at(files, np.array([0, 1, 3]), lambda payload: payload["title"][-5:])
    assert (texts, numbers.tolist()) == (["apple", " boat"], [0, 0, 1])
    with pytest.raises(IndexError, match="row 6 of an export with 6 rows"):
        list(payloads_at(files, np.array([1, 6])))


def test_a_run_without_labeling_does_not_load_the_openai_package() -> None:
    code = "import sys, server.labeling.stage; sys.exit('openai' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
