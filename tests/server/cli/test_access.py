"""Namespaces, keys and imports on the store itself, and a server that asks for keys."""

from __future__ import annotations

import signal
from pathlib import Path

from shoal_command import N_GROUPS, N_PER_GROUP, Served, call_shoal, serving


def test_a_key_opens_its_namespace_until_it_is_revoked(tmp_path: Path, documents: Path):
    where = ("--data-dir", tmp_path)
    assert call_shoal("namespaces", "create", "books", *where).code == 0
    made = call_shoal(
        "keys", "create", "--namespace", "books", "--role", "write", "--json", *where
    ).json()
    imported = call_shoal("import", documents, "--collection", "docs", *where)
    assert imported.code == 0, imported.err
    assert "docs of books" in imported.out

    with serving(tmp_path) as served:
        caller = {"SHOAL_SERVER": served.address, "SHOAL_NAMESPACE": "books"}
        without = call_shoal("list", **caller)
        elsewhere = call_shoal("list", "--namespace", "films", **caller, SHOAL_KEY=made["secret"])
        ran = call_shoal(
            "run",
            "--collection",
            "docs",
            "--method",
            "hdbscan",
            "--json",
            **caller,
            SHOAL_KEY=made["secret"],
        )
        listed = call_shoal("keys", "list", *where).out
        assert call_shoal("keys", "revoke", made["key_id"], *where).code == 0
        revoked = call_shoal("list", **caller, SHOAL_KEY=made["secret"])

        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(30) == 0

    assert without.code == 5
    assert elsewhere.code == 5
    assert ran.code == 0, ran.err
    assert len(ran.json()["groups"]) == N_GROUPS
    assert made["key_id"] in listed
    assert made["secret"] not in listed
    assert revoked.code == 5
    assert "revoked" in revoked.err


def test_keys_are_rotated_under_a_running_server(tmp_path: Path):
    where = ("--data-dir", tmp_path)

    def new_key():
        return call_shoal("keys", "create", "--namespace", "books", "--json", *where).json()

    assert call_shoal("namespaces", "create", "books", *where).code == 0
    old = new_key()
    with serving(tmp_path) as served:
        caller = {"SHOAL_SERVER": served.address, "SHOAL_NAMESPACE": "books"}

        def codes(*keys):
            return [call_shoal("list", **caller, SHOAL_KEY=key["secret"]).code for key in keys]

        before = codes(old)
        new = new_key()
        both = codes(old, new)
        assert call_shoal("keys", "revoke", old["key_id"], *where).code == 0
        after = codes(old, new)

    assert (before, both, after) == ([0], [0, 0], [5, 0])


def test_importing_twice_replaces(tmp_path: Path, documents: Path):
    words = ("import", documents, "--collection", "docs", "--json", "--data-dir", tmp_path)
    first, second = call_shoal(*words), call_shoal(*words)

    assert first.code == second.code == 0
    assert first.json()["points"] == second.json()["points"] == N_GROUPS * N_PER_GROUP
    assert second.json()["namespace"] == "default"
    assert second.json()["payload_fields"] == ["name", "kind"]


def test_what_import_refuses(tmp_path: Path, documents: Path):
    where = ("--data-dir", tmp_path)
    bad_words = call_shoal(
        "import", documents, "--collection", "a__b", "--distance", "cosine", *where
    )
    no_namespace = call_shoal(
        "import", documents, "--collection", "docs", "--namespace", "films", *where
    )

    assert bad_words.code == 2
    assert "--collection" in bad_words.err
    assert "--distance" in bad_words.err
    assert no_namespace.code == 4


def test_a_file_that_is_not_there(dev_server: Served, tmp_path: Path):
    where = ("--data-dir", dev_server.data_dir)
    done = call_shoal("import", tmp_path / "none.parquet", "--collection", "docs", *where)

    assert done.code == 2
    assert "no such file" in done.err


def test_bad_names_of_namespaces_roles_and_keys(tmp_path: Path):
    where = ("--data-dir", tmp_path)

    assert call_shoal("namespaces", "create", "two words", *where).code == 2
    assert call_shoal("keys", "create", "--namespace", "films", *where).code == 4
    assert call_shoal("keys", "create", "--namespace", "films", "--role", "root", *where).code == 2
    assert call_shoal("keys", "revoke", "key_none", *where).code == 4
