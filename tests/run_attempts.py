"""Attempts of one run, made in this process one after the other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from server.jobs.definition import parse_definition
from server.jobs.pipeline import prepare
from server.jobs.spec import Prepared, RunSpec
from server.qdrant.client import QdrantAddress
from server.results.artifacts import RunFolder

N_DOCUMENTS = 120


def add_documents(client: QdrantClient, name: str, n_documents: int = N_DOCUMENTS) -> None:
    """Store three groups of documents with two vectors each."""
    rng = np.random.default_rng(5)
    size = {"text": 6, "image": 4}
    client.create_collection(
        name,
        vectors_config={
            key: models.VectorParams(size=n, distance=models.Distance.COSINE)
            for key, n in size.items()
        },
    )
    vectors = {
        key: np.eye(3, n)[np.arange(n_documents) % 3] + rng.normal(0, 0.1, (n_documents, n))
        for key, n in size.items()
    }
    client.upsert(
        name,
        [
            models.PointStruct(
                id=number,
                vector={key: rows[number].tolist() for key, rows in vectors.items()},
                payload={"title": f"title {number % 3}", "color": "rgb"[number % 3]},
            )
            for number in range(n_documents)
        ],
        wait=True,
    )


@dataclass
class Attempts:
    """Attempts of one run, and what the last of them told."""

    spec: RunSpec
    told: list[dict[str, Any]] = field(default_factory=list)

    @property
    def folder(self) -> RunFolder:
        spec = self.spec
        return RunFolder(spec.artifacts_url, spec.namespace_id, spec.cluster_id, spec.run_id)

    @property
    def messages(self) -> list[str]:
        return [report["message"] for report in self.told if report["message"]]

    def make(self, lease_number: int) -> Prepared:
        self.told = []
        self.spec = replace(self.spec, lease_number=lease_number)
        return prepare(self.spec, self.told.append)

    def damage(self, name: str) -> None:
        path = Path(self.folder.root) / f".checkpoint-{name}"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(content)

    def results(self) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
        """Members, groups and figures, as readers get them."""
        groups = [
            {**vars(group), "centroid": None if group.centroid is None else group.centroid.tolist()}
            | {"place": None if group.place is None else group.place.tolist()}
            for group in self.folder.read_groups()
        ]
        return self.folder.read_members(), groups, self.folder.read_figures()


def attempts(tmp_path: Path, address: QdrantAddress, name: str, body: dict[str, Any]) -> Attempts:
    definition = parse_definition({"collection_ids": [name], **body})
    return Attempts(
        RunSpec(
            namespace_id="ns_1",
            cluster_id="clust_1",
            run_id="run_1",
            definition=definition,
            qdrant=address,
            qdrant_names=(name,),
            artifacts_url=str(tmp_path),
            outputs=(),
            label_cache=str(tmp_path / "labels"),
            device="cpu",
        )
    )
