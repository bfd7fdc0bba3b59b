"""A REST client that takes nothing on trust, and the gateway that it speaks to."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import clusters.v1
import httpx
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from server.gateway.config import Address, Gateway
from server.gateway.encryption import UpstreamTls
from server.gateway.envoy import find, free
from tests.gateway.models import Error

CONTRACT = Path(clusters.v1.__file__).parent
OPENAPI = json.loads((CONTRACT / "openapi.json").read_text())
START_TIMEOUT_S = 60
M = TypeVar("M", bound=BaseModel)


class Rest:
    """Calls a gateway; every answer is held against the OpenAPI document."""

    def __init__(self, address: str, **headers: str) -> None:
        self.address = address
        self.http = httpx.Client(base_url=f"http://{address}", headers=headers, timeout=60)

    def send(self, verb: str, path: str, **more: Any) -> httpx.Response:
        """Call, and check the form of what comes back."""
        answer = self.http.request(verb, path, **more)
        check_form(verb, path.partition("?")[0], answer)
        return answer

    def get(self, kind: type[M], verb: str, path: str, **more: Any) -> M:
        """Call, and read the answer as a strict client does."""
        answer = self.send(verb, path, **more)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return kind.model_validate_json(answer.content)

    def stream(self, kind: type[M], path: str) -> Iterator[M]:
        """Read a stream of server-sent events as they come."""
        with self.http.stream("GET", path) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream"
            for line in answer.iter_lines():
                if line:
                    assert line.startswith("data: "), line
                    yield kind.model_validate_json(line.removeprefix("data: "))

    def fail(self, status: int, verb: str, path: str, **more: Any) -> Error:
        """Call what shall fail with a status."""
        answer = self.send(verb, path, **more)
        assert answer.status_code == status, answer.text
        return error_of(answer)


def error_of(answer: httpx.Response) -> Error:
    """Read an error, whose body and headers must agree."""
    assert answer.headers["content-type"] == "application/json"
    assert not [name for name in answer.headers if name.startswith(("grpc-", "x-rest-"))]
    error = Error.model_validate_json(answer.content)
    assert error.status == answer.status_code
    if answer.status_code in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return error


def check_form(verb: str, path: str, answer: httpx.Response) -> None:
    """Hold an answer against what OpenAPI says of the call."""
    operation = next(
        (
            operations[verb.lower()]
            for template, operations in OPENAPI["paths"].items()
            if _fits(template, path) and verb.lower() in operations
        ),
        None,
    )
    if operation is None:
        assert answer.status_code in (404, 405), answer.text
        return
    response = operation["responses"][str(answer.status_code)]
    if "$ref" in response:
        response = OPENAPI["components"]["responses"][response["$ref"].rpartition("/")[2]]
    content = response["content"].get(answer.headers["content-type"])
    assert content is not None, answer.headers
    if answer.headers["content-type"] == "application/json":
        schema = {**content["schema"], "components": OPENAPI["components"]}
        Draft202012Validator(schema).validate(answer.json())


def _fits(template: str, path: str) -> bool:
    parts, sent = template.split("/"), path.split("/")
    return len(parts) == len(sent) and all(
        bool(word) if part.startswith("{") else part == word
        for part, word in zip(parts, sent, strict=True)
    )


@contextmanager
def running_gateway(upstream: str, log: Path) -> Iterator[str]:
    """Run Envoy before a server that answers, and give its address."""
    with envoy(Address.parse(upstream, "upstream"), log) as (address, process):
        until_ready(address, process, log)
        yield address


@contextmanager
def envoy(
    upstream: Address, log: Path, tls: UpstreamTls | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run Envoy as `shoal gateway` does."""
    listen = free(Address("127.0.0.1", 0))
    config = Gateway(listen, upstream, CONTRACT, tls).config()
    command = [find(), "--config-yaml", config, "--disable-hot-restart", "--concurrency", "1"]
    with log.open("w") as file:
        process = subprocess.Popen([*command, "-l", "warning"], stdout=file, stderr=file)
    try:
        yield str(listen), process
    finally:
        process.terminate()
        process.wait(20)


def until_ready(address: str, process: subprocess.Popen[Any], log: Path) -> None:
    """Wait until the gateway says that the server behind it answers."""
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(base_url=f"http://{address}") as http:
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the gateway does not become ready"
            with suppress(httpx.TransportError):
                if http.get("/healthz").status_code == 200:
                    return
            time.sleep(0.02)


async def events_of(kind: type[M], answer: httpx.Response) -> AsyncIterator[M]:
    """Read a stream's entries as they come."""
    async for line in answer.aiter_lines():
        if line:
            yield kind.model_validate_json(line.removeprefix("data: "))
