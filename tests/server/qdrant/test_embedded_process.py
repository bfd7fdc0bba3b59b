"""The embedded server as a process: starting, finding, killing, reopening."""

import json
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from qdrant_client.models import (
    CreateAlias,
    CreateAliasOperation,
    DeleteAlias,
    DeleteAliasOperation,
    PointStruct,
    VectorParams,
)

import server
from server.qdrant.client import connect
from server.qdrant.embedded import attach_or_start, start_embedded
from server.qdrant.embedded.process import answers, read_address
from server.qdrant.errors import EmbeddedStartError, StorageLockedError

TWO_DIMS = VectorParams(size=2, distance="Euclid")


def points(first, last):
    return [PointStruct(id=i, vector=[float(i), 1.0], payload={"i": i}) for i in range(first, last)]


def test_kill_loses_nothing_acknowledged(tmp_path):
    embedded = start_embedded(tmp_path)
    client = connect(embedded.address)
    client.create_collection("c", vectors_config=TWO_DIMS)
    client.create_payload_index("c", "i", "integer")
    acknowledged = 0
    killer = threading.Timer(0.4, lambda: os.kill(embedded.process.pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(grpc.RpcError) as caught:  # noqa: PT012 - runs until the kill
        while True:
            client.upsert("c", points(acknowledged, acknowledged + 50))
            acknowledged += 50
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    killer.join()
    client.close()
    embedded.stop()

    with start_embedded(tmp_path) as reopened:
        client = connect(reopened.address)
        records, _ = client.scroll("c", limit=acknowledged + 50, with_vectors=True)
        kept = [(r.id, r.vector, r.payload) for r in records if r.id < acknowledged]
        assert kept == [(i, [float(i), 1.0], {"i": i}) for i in range(acknowledged)]
        assert acknowledged > 0
        assert "i" in client.get_collection("c").payload_schema
        client.upsert("c", points(0, 1))
        client.close()


def test_collections_and_aliases_survive_a_stop(tmp_path):
    with start_embedded(tmp_path) as embedded:
        client = connect(embedded.address)
        client.create_collection("kept", vectors_config={"a": TWO_DIMS})
        client.create_collection("gone", vectors_config=TWO_DIMS)
        client.upsert("kept", [PointStruct(id=1, vector={"a": [3.0, 4.0]}, payload={"x": 1})])
        client.update_collection_aliases([create("alias", "kept")])
        client.delete_collection("gone")
        client.close()
    with start_embedded(tmp_path) as embedded:
        client = connect(embedded.address)
        assert [c.name for c in client.get_collections().collections] == ["kept"]
        (record,) = client.retrieve("alias", [1], with_vectors=True)
        assert (record.vector, record.payload) == ({"a": [3.0, 4.0]}, {"x": 1})
        client.close()
    assert len(list((tmp_path / "qdrant" / "collections").iterdir())) == 1


def test_a_second_owner_is_told_who_holds_the_storage(tmp_path):
    with (
        start_embedded(tmp_path) as embedded,
        pytest.raises(StorageLockedError, match=f"in use by process {embedded.process.pid}"),
    ):
        start_embedded(tmp_path)


def test_a_second_process_attaches_and_does_not_stop_the_first(tmp_path):
    with start_embedded(tmp_path) as embedded:
        found = attach_or_start(tmp_path)
        assert found.address == embedded.address
        assert not found.is_owned
        found.stop()
        assert embedded.is_alive
        assert answers(embedded.address)


def test_it_outlives_its_parent_while_another_process_uses_it(tmp_path):
    embedded = start_embedded(tmp_path)
    user = attach_or_start(tmp_path)
    embedded.stop()
    assert user.is_alive
    late = attach_or_start(tmp_path)  # As a restarted server would.
    assert not late.is_owned
    user.stop()
    assert late.is_alive
    late.stop()
    assert embedded.process.wait(timeout=20) == 0
    embedded.stop()
    assert not answers(embedded.address)


def test_a_dead_servers_address_is_not_trusted(tmp_path):
    first = start_embedded(tmp_path)
    first.process.kill()
    first.stop()
    assert read_address(tmp_path) == first.address  # The killed child could not remove it.
    with attach_or_start(tmp_path) as second:
        assert second.is_owned
        assert answers(second.address)
    assert read_address(tmp_path) is None


def test_only_the_key_of_the_address_file_opens_it(tmp_path):
    with start_embedded(tmp_path) as embedded:
        address_file = tmp_path / "qdrant" / "address.json"
        assert stat.S_IMODE(address_file.stat().st_mode) == 0o600
        assert read_address(tmp_path) == embedded.address
        assert embedded.address.api_key not in repr(embedded)
        for key in (None, "wrong"):
            stranger = replace(embedded.address, api_key=key)
            assert not answers(stranger)
            client = connect(stranger)
            with pytest.raises(grpc.RpcError) as caught:
                client.get_collections()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            client.close()


def test_it_ends_with_its_parent(tmp_path):
    script = (
        "import sys; from server.qdrant.embedded import start_embedded; "
        f"e = start_embedded({str(tmp_path)!r}); "
        "sys.stdout.write(f'{e.process.pid}\\n'); sys.stdout.flush(); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(server.__file__).parent.parent,
    )
    child_pid = int(parent.stdout.readline())
    child = os.pidfd_open(child_pid)
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()

    ended, _, _ = select.select([child], [], [], 20)
    os.close(child)
    assert ended, "the child outlived its killed parent by 20 s"


def test_a_start_that_fails_says_why(tmp_path):
    with start_embedded(tmp_path / "a") as first:
        port = first.address.grpc_port
        with pytest.raises(EmbeddedStartError, match=f"cannot listen on 127.0.0.1:{port}"):
            start_embedded(tmp_path / "b", port=port)


def test_what_a_crash_left_is_swept(tmp_path):
    folder = tmp_path / "qdrant" / "collections"
    (folder / ".new-1234" / "shard").mkdir(parents=True)
    (folder / ".del-5678" / "shard").mkdir(parents=True)
    (tmp_path / "qdrant" / "aliases.json").write_text(json.dumps({"old": "gone"}))
    with start_embedded(tmp_path) as embedded:
        client = connect(embedded.address)
        assert client.get_collections().collections == []
        assert client.get_aliases().aliases == []
        client.close()
    assert list(folder.iterdir()) == []


def test_readers_never_miss_an_alias_that_is_being_switched(tmp_path):
    with start_embedded(tmp_path) as embedded:
        client = connect(embedded.address)
        for generation in (0, 1):
            client.create_collection(f"g{generation}", vectors_config=TWO_DIMS)
            client.upsert(f"g{generation}", points(0, 3))
        client.update_collection_aliases([create("live", "g0")])
        counts, failures, stop = [], [], threading.Event()

        def read():
            reader = connect(embedded.address)
            while not stop.is_set():
                try:
                    counts.append(reader.count("live").count)
                except grpc.RpcError as error:
                    failures.append(error.details())
            reader.close()

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for generation in range(2, 22):
            # As a new run does it: fill the next generation, switch, delete the old one.
            client.create_collection(f"g{generation}", vectors_config=TWO_DIMS)
            client.upsert(f"g{generation}", points(0, 3))
            client.update_collection_aliases([drop("live"), create("live", f"g{generation}")])
        stop.set()
        for thread in threads:
            thread.join()
        client.close()
        assert failures == []
        assert set(counts) == {3}


def create(alias, collection):
    return CreateAliasOperation(
        create_alias=CreateAlias(collection_name=collection, alias_name=alias)
    )


def drop(alias):
    return DeleteAliasOperation(delete_alias=DeleteAlias(alias_name=alias))
