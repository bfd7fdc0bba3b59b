"""`shoal doctor` against things that work, and against each one broken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from qdrant_fixtures import *  # noqa: F403
from shoal_command import Ended, call_shoal, run_shoal

from server.jobs.model import KeyRecord
from server.qdrant.client import QdrantAddress
from server.stores.sqlite import SqliteStore
from tests.server.labeling.chat_server import ChatServer

NOTHING = "127.0.0.1:1"


Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, qdrant_address: QdrantAddress) -> Doctor:
    """Runs the doctor beside a Qdrant that answers; gives its exit code, and findings by check."""

    def run(**settings: str) -> tuple[int, dict[str, dict[str, Any]]]:
        usual = {
            "SHOAL_LISTEN": "127.0.0.1:0",
            "SHOAL_QDRANT_URL": f"http://{qdrant_address.target}",
            "SHOAL_QDRANT_API_KEY": qdrant_address.api_key or "",
        }
        words = ("--no-workers", "--json", "--data-dir", tmp_path)
        ended = call_shoal("doctor", *words, **usual | settings)
        return ended.code, {finding["check"]: finding for finding in ended.json()}

    return run


def test_a_fresh_installation_is_well_and_computes(tmp_path: Path) -> None:
    ended: Ended = run_shoal("doctor", "--data-dir", tmp_path, SHOAL_DEVICE="cpu")

    assert ended.code == 0, ended.out
    for word in ("job store: SQLite", "the embedded Qdrant", "artifacts: ", "workers: ", "cpu: "):
        assert word in ended.out
    assert "FAULT" not in ended.out
    assert ended.err == ""


def test_all_that_is_broken_is_told_at_once_with_what_to_do(tmp_path: Path, doctor: Doctor) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, findings = doctor(
        SHOAL_MONGODB_URI="mongodb://me:canary@[nowhere",
        SHOAL_QDRANT_URL=f"http://{NOTHING}",
        SHOAL_QDRANT_API_KEY="canary",
        SHOAL_ARTIFACTS_URL=str(blocked / "artifacts"),
        SHOAL_OTEL_ENDPOINT=f"http://{NOTHING}",
        SHOAL_LLM_BASE_URL=f"http://{NOTHING}/v1",
        SHOAL_LLM_API_KEY="canary",
        SHOAL_TLS_CERT=str(blocked),
        SHOAL_TLS_KEY=str(blocked),
    )

    faults = {name for name, finding in findings.items() if finding["state"] == "fault"}
    warnings = {name for name, finding in findings.items() if finding["state"] == "warning"}
    assert code == 1
    assert faults == {"job store", "qdrant", "artifacts", "tls"}
    assert warnings == {"model provider openai_compatible", "traces"}
    assert all(findings[name]["advice"] for name in ("artifacts", "tls", "traces"))
    assert "canary" not in str(findings)


def test_settings_that_cannot_be_read_are_the_first_finding(tmp_path: Path, doctor: Doctor) -> None:
    code, findings = doctor(SHOAL_LISTEN="nowhere", SHOAL_WORKERS="0")

    assert code == 1
    assert findings.keys() == {"settings"}
    ended = call_shoal("doctor", "--data-dir", tmp_path, SHOAL_WORKERS="0", SHOAL_DEVICE="tpu")
    assert "SHOAL_WORKERS" in ended.out
    assert "SHOAL_DEVICE" in ended.out


def test_a_damaged_store_is_a_fault(tmp_path: Path, doctor: Doctor) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"no database" * 1000)
    code, findings = doctor()

    assert code == 1
    assert findings["job store"]["state"] == "fault"
    assert "jobs.sqlite" in findings["job store"]["told"]


def test_a_store_without_keys_is_a_warning_until_there_is_one(
    tmp_path: Path, doctor: Doctor
) -> None:
    where = ("--data-dir", tmp_path)
    call_shoal("namespaces", "create", "books", *where)
    code, before = doctor()
    call_shoal("keys", "create", "--namespace", "books", *where)
    _, after = doctor()

    assert code == 0
    assert before["job store"]["state"] == "warning"
    assert "shoal keys create" in before["job store"]["advice"]
    assert after["job store"]["state"] == "ok"


def test_a_clock_that_went_back_is_told(tmp_path: Path, doctor: Doctor) -> None:
    async def store_a_key_of_tomorrow() -> None:
        store = SqliteStore(tmp_path / "jobs.sqlite")
        await store.open()
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        await store.insert_key(
            KeyRecord(
                key_id="key_1",
                sha256="0" * 64,
                organization_id="org_1",
                role="read",
                namespace_ids=[],
                created_at=tomorrow,
            )
        )
        await store.close()

    asyncio.run(store_a_key_of_tomorrow())
    _, findings = doctor()

    assert findings["clock"]["state"] == "warning"
    assert "went back" in findings["clock"]["told"]


@pytest.mark.parametrize(
    ("days", "state"), [(60, "ok"), (3, "warning"), (-1, "fault")], ids=["long", "short", "over"]
)
def test_the_certificate_s_remaining_days(
    tmp_path: Path, doctor: Doctor, days: int, state: str
) -> None:
    files = Authority(tmp_path / "tls").sign(
        "localhost", to="server", expires_in=timedelta(days=days, hours=1)
    )
    _, findings = doctor(
        SHOAL_TLS_CERT=str(files.certificate), SHOAL_TLS_KEY=str(files.private_key)
    )

    assert findings["tls"]["state"] == state
    assert (str(days) if days > 0 else "expired") in findings["tls"]["told"]


def test_a_network_address_without_tls_is_a_warning(tmp_path: Path, doctor: Doctor) -> None:
    _, findings = doctor(SHOAL_LISTEN="0.0.0.0:0")

    assert findings["tls"]["state"] == "warning"
    assert "SHOAL_TLS_CERT" in findings["tls"]["advice"]


def test_a_taken_port_is_told(tmp_path: Path, doctor: Doctor) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        _, findings = doctor(SHOAL_LISTEN=address, SHOAL_METRICS_LISTEN=address)

    assert findings["port"]["state"] == findings["metrics port"]["state"] == "warning"
    assert address in findings["port"]["told"]


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


def test_a_model_provider_that_refuses_the_key_is_told_without_it(
    tmp_path: Path, doctor: Doctor, chat: ChatServer
) -> None:
    settings = {"SHOAL_OPENAI_BASE_URL": chat.base_url, "SHOAL_OPENAI_API_KEY": "canary-good"}
    chat.models_status = 200
    _, well = doctor(**settings)
    chat.models_status = 401
    code, refused = doctor(**settings)

    assert well["model provider openai"]["state"] == "ok"
    assert code == 0
    assert refused["model provider openai"]["state"] == "warning"
    assert "SHOAL_OPENAI_API_KEY" in refused["model provider openai"]["advice"]
    assert "canary" not in str(refused)
