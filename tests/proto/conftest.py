"""The contract as buf, the gateway and the documentation read it: the checked-in descriptor set."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

PROTO_DIR = Path(__file__).parents[2] / "proto"


@pytest.fixture(scope="session")
def proto_dir() -> Path:
    """Return the folder of the protos."""
    return PROTO_DIR


@pytest.fixture(scope="session")
def all_files() -> list[descriptor_pb2.FileDescriptorProto]:
    """Return every file of the descriptor set, imports included."""
    content = (PROTO_DIR / "clusters/v1/descriptor_set.binpb").read_bytes()
    return list(descriptor_pb2.FileDescriptorSet.FromString(content).file)


@pytest.fixture(scope="session")
def own_files(
    all_files: list[descriptor_pb2.FileDescriptorProto],
) -> list[descriptor_pb2.FileDescriptorProto]:
    """Return the files of package clusters.v1."""
    return [file for file in all_files if file.package == "clusters.v1"]
