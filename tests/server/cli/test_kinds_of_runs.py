"""Runs beyond one method on one vector: what the options of `shoal run` lead to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shoal_command import N_GROUPS, N_PER_GROUP, Served, Shoal, call_shoal

KMEANS = ("run", "--method", "kmeans", "--param", f"n_clusters={N_GROUPS}")
TOPICS = ["apple orchard", "harbour pilot", "violin concert", "glacier melting"]


@pytest.fixture(scope="module")
def pairs(dev_server: Served, documents: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A collection with a second vector, by which there are two kinds of documents."""
    table = pq.read_table(documents)
    rng = np.random.default_rng(11)
    halves = np.arange(len(table)) % 2
    vectors = np.eye(2, 4)[halves] * 10 + rng.normal(size=(len(table), 4), scale=0.5)
    flat = pa.array(vectors.astype(np.float32).ravel())
    table = table.append_column("shape", pa.FixedSizeListArray.from_arrays(flat, 4))
    about = [TOPICS[row // N_PER_GROUP] for row in range(len(table))]
    table = table.append_column("about", [about])
    file = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pq.write_table(table, file)
    done = call_shoal("import", file, "--collection", "pairs", "--data-dir", dev_server.data_dir)
    assert done.code == 0, done.err
    return "pairs"


def test_features_apart_give_groups_and_outputs_of_each(shoal: Shoal, pairs: str):
    features = ("--feature", "embedding", "--feature", "shape", "--strategy", "independent")
    steps = ("--step", "normalize", "--step", '{"method": "pca", "n_components": 2}')
    words = ("run", "--method", "kmeans", "--param", "n_clusters=2", "--collection", pairs)
    done = shoal(*words, *features, *steps, "--output-per-feature", "--json")

    assert done.code == 0, done.err
    report = done.json()
    assert len(report["cluster"]["output_collection_names"]) == 2
    assert report["cluster"]["vector_config"]["preprocessing_steps"][1]["n_components"] == 2
    groups = {group["cluster_id"]: group["member_count"] for group in report["groups"]}
    assert sorted(groups) == ["embedding.cl_0", "embedding.cl_1", "shape.cl_0", "shape.cl_1"]
    assert groups["shape.cl_0"] == groups["shape.cl_1"] == N_GROUPS * N_PER_GROUP // 2


def test_learned_weights_are_shown(shoal: Shoal, pairs: str):
    features = ("--feature", "embedding", "--feature", "shape", "--strategy", "weighted")
    done = shoal(*KMEANS, "--collection", pairs, *features)

    assert done.code == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("weights "))
    assert "embedding=" in line
    assert "shape=" in line
    assert "(learned; score " in line


def test_attributes_group_below_their_parents_without_a_method(shoal: Shoal, collection: str):
    words = ("run", "--attribute", "kind", "--attribute", "name", "--hierarchical")
    done = shoal(*words, "--collection", collection, "--top", "500", "--name", "by kind")
    listed = shoal("groups", "by kind").out.splitlines()

    assert done.code == 0, done.err
    assert "attribute_based" in done.out
    depths = [len(line) - len(line.lstrip()) for line in listed if "cl_" in line]
    assert depths.count(min(depths)) == N_GROUPS
    assert depths.count(min(depths) + 2) == N_GROUPS * N_PER_GROUP
    assert depths[0] == min(depths) != depths[1]


def test_a_group_is_clustered_again_and_both_clusters_say_so(shoal: Shoal, collection: str):
    upper = shoal(*KMEANS, "--collection", collection, "--name", "upper", "--json")
    assert upper.code == 0, upper.err
    parent = ("--parent", "upper", "--parent-group", "cl_0")
    words = ("run", "--method", "kmeans", "--param", "n_clusters=2", "--json")
    lower = shoal(*words, "--collection", collection, *parent)

    assert lower.code == 0, lower.err
    cluster = lower.json()["cluster"]
    assert cluster["num_documents_clustered"] == N_PER_GROUP
    assert cluster["parent_cluster_id"] == upper.json()["cluster"]["cluster_id"]
    assert cluster["parent_group_id"] == "cl_0"
    assert shoal("get", "upper", "--json").json()["child_cluster_ids"] == [cluster["cluster_id"]]


def test_distinctive_words_are_shown_and_a_model_needs_a_provider(shoal: Shoal, pairs: str):
    words = (*KMEANS, "--collection", pairs, "--feature", "embedding")
    done = shoal(*words)
    refused = shoal(*words, "--label", "--provider", "google")

    assert done.code == 0, done.err
    rows = [line for line in done.out.splitlines() if "cl_" in line and "kind" in line]
    assert len(rows) == N_GROUPS
    for topic in TOPICS:
        assert sum(all(word in row for word in topic.split()) for row in rows) == 1
    assert refused.code == 2
    assert "llm_labeling.provider" in refused.err
