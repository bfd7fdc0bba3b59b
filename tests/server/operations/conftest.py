"""One real server with everything that operators can turn on, and canaries for its secrets.

It speaks mutual TLS, logs JSON at the finest level, serves metrics, sends traces, uses a
Qdrant with a key, and asks a language model that quotes the caller's key in its errors. Two
jobs went through it: one that ended well, and one that failed.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from certificates import Authority
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from shoal_command import Ended, call_shoal, serving, write_documents

from server.qdrant.client import QdrantAddress, connect
from server.qdrant.embedded import start_embedded
from server.qdrant.importer import import_parquet
from tests.server.labeling.chat_server import ChatServer, Received, Response, failure
from tests.server.operations.collector import Collector

LLM_KEY = "canary-llm-key-5f1c2a"
NATIVE = re.compile(r"[IWEF]\d{4} .*\.cc:\d+\] ")
WRONG_KEY = "sk_canary-wrong-key-but-long-enough"


@dataclass(frozen=True)
class Operated:
    """What the server was given, what its callers saw, and all that it wrote."""

    folder: Path
    secrets: dict[str, str]
    spans: list[Span]
    metrics: str
    ran: Ended
    failed: Ended
    refused: Ended
    stranger: Ended
    exit_code: int

    @property
    def log(self) -> str:
        return (self.folder / "data" / "server.log").read_text()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log's lines: every one is JSON, but those of gRPC's native library."""
        return [json.loads(line) for line in self.log.splitlines() if not NATIVE.match(line)]

    def spans_of_the_run(self) -> dict[str, Span]:
        """Give the spans in the trace of the first job, by name."""
        (run,) = [span for span in self.spans if self.run_id in str(span.attributes)]
        return {span.name: span for span in self.spans if span.trace_id == run.trace_id}

    @property
    def run_id(self) -> str:
        run_id: str = self.ran.json()["execution"]["run_id"]
        return run_id


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def quote_the_key(request: Received) -> Response:
    """Fail as providers do that repeat what they were sent."""
    return failure(401, f"Incorrect API key provided: {request.headers['authorization']}")


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    folder = tmp_path_factory.mktemp("operated")
    chat, collector = ChatServer(), Collector()
    chat.answering = quote_the_key
    with start_embedded(tmp_path_factory.mktemp("their-qdrant")) as qdrant:
        try:
            yield operate(folder, chat, collector, qdrant.address)
        finally:
            chat.close()
            collector.close()


def operate(
    folder: Path, chat: ChatServer, collector: Collector, qdrant: QdrantAddress
) -> Operated:
    """Serve, run the jobs, ask for the metrics, and stop."""
    authority = Authority(folder / "tls")
    import_documents(qdrant, write_documents(folder / "docs.parquet"))
    where = ("--data-dir", folder / "data")
    assert call_shoal("namespaces", "create", "books", *where).code == 0
    key = call_shoal("keys", "create", "--namespace", "books", "--json", *where).json()["secret"]
    metrics_address = f"127.0.0.1:{free_port()}"
    settings = server_settings(authority, chat, collector, qdrant, metrics_address)
    caller = caller_settings(authority, key)
    with serving(folder / "data", **settings) as served:
        caller["SHOAL_SERVER"] = served.address
        words = ("run", "--collection", "docs", "--method", "kmeans", "--json", "--param")
        labels = ("--label", "--provider", "openai_compatible", "--model", "m")
        ran = call_shoal(*words, "n_clusters=4", "--name", "labeled", *labels, **caller)
        failed = call_shoal(*words, "n_clusters=100000", **caller)
        refused = call_shoal("list", **(caller | {"SHOAL_KEY": WRONG_KEY}))
        stranger = call_shoal("list", **without(caller, "SHOAL_CLIENT_CERT", "SHOAL_CLIENT_KEY"))
        with urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
        served.process.send_signal(signal.SIGTERM)
        exit_code = served.process.wait(90)
    secrets = {
        "API key": key,
        "wrong API key": WRONG_KEY,
        "LLM key": LLM_KEY,
        "Qdrant key": qdrant.api_key or "",
    }
    return Operated(
        folder, secrets, collector.spans(), metrics,
        ran, failed, refused, stranger, exit_code,
    )  # fmt: skip


def without(settings: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in settings.items() if name not in names}


def import_documents(qdrant: QdrantAddress, file: Path) -> None:
    client = connect(qdrant)
    import_parquet(client, "docs", [file])
    client.close()


def server_settings(
    authority: Authority,
    chat: ChatServer,
    collector: Collector,
    qdrant: QdrantAddress,
    metrics_address: str,
) -> dict[str, str]:
    identity = authority.sign("localhost", "127.0.0.1", to="server")
    return {
        "SHOAL_TLS_CERT": str(identity.certificate),
        "SHOAL_TLS_KEY": str(identity.private_key),
        "SHOAL_TLS_CLIENT_CA": str(authority.certificate),
        "SHOAL_LOG_FORMAT": "json",
        "SHOAL_LOG_LEVEL": "DEBUG",
        "SHOAL_METRICS_LISTEN": metrics_address,
        "SHOAL_OTEL_ENDPOINT": collector.endpoint,
        "SHOAL_QDRANT_URL": f"http://{qdrant.target}",
        "SHOAL_QDRANT_API_KEY": qdrant.api_key or "",
        "SHOAL_LLM_BASE_URL": chat.base_url,
        "SHOAL_LLM_API_KEY": LLM_KEY,
        "SHOAL_LLM_MAX_ATTEMPTS": "1",
    }


def caller_settings(authority: Authority, key: str) -> dict[str, str]:
    client = authority.sign("client", to="client")
    return {
        "SHOAL_NAMESPACE": "books",
        "SHOAL_KEY": key,
        "SHOAL_TLS_CA": str(authority.certificate),
        "SHOAL_CLIENT_CERT": str(client.certificate),
        "SHOAL_CLIENT_KEY": str(client.private_key),
    }
