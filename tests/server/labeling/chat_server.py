"""A real HTTP server that speaks OpenAI's chat protocol, as a test tells it to.

It keeps every request it got, with the time, and how many were under way at once.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    at: float

    @property
    def user_text(self) -> str:
        """The first user message."""
        return next(m["content"] for m in self.body["messages"] if m["role"] == "user")

    @property
    def system_text(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def documents(self) -> list[dict[str, str]]:
        """The samples, read as a careful model would: the JSON in the one block."""
        _, _, rest = self.user_text.partition("<documents>")
        block, _, _ = rest.partition("</documents>")
        return json.loads(block)


@dataclass
class Response:
    """What the server answers: a status, a body, headers; `hang` keeps it waiting for the end."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False


def completion(content: Any, **changes: Any) -> Response:
    """A successful answer; content that is no text is sent as its JSON."""
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    message = {"role": "assistant", "content": text, **changes}
    return Response(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "served",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
        }
    )


def failure(status: int, message: str = "no", code: str | None = None, **headers: str) -> Response:
    """An error in OpenAI's form."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    return Response({"error": error}, status, {k.replace("_", "-"): v for k, v in headers.items()})


Answering = Callable[[Received], Response]


class ChatServer:
    """Serves until closed; `answering` decides each response, by default from the documents."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.most_at_once = 0
        self.answering: Answering = name_by_first_text
        self.models_status = 200
        self._at_once = 0
        self._lock = threading.Lock()
        self.ending = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer_in_turn(self, *responses: Response) -> None:
        """Answer with these, then by default."""
        left = list(responses)

        def answering(request: Received) -> Response:
            with self._lock:
                return left.pop(0) if left else name_by_first_text(request)

        self.answering = answering

    def respond(self, request: Received) -> Response:
        with self._lock:
            self.received.append(request)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.answering(request)
        finally:
            with self._lock:
                self._at_once -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Give the list of models, or an error that quotes the key."""
                told = {"error": {"message": self.headers["authorization"]}}
                is_well = chat.models_status == 200
                body = {"object": "list", "data": []} if is_well else told
                content = json.dumps(body).encode()
                self.send_response(chat.models_status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Received(self.path, headers, body, time.monotonic())
                response = chat.respond(request)
                if response.hang:
                    chat.ending.wait()
                    self.close_connection = True
                    return
                sent = response.body
                content = sent.encode() if isinstance(sent, str) else json.dumps(sent).encode()
                self.send_response(response.status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


def reply(label: str, summary: str = "A summary.", keywords: list[str] | None = None) -> Response:
    """A model's good answer."""
    return completion({"label": label, "summary": summary, "keywords": keywords or ["one", "two"]})


def name_by_first_text(request: Received) -> Response:
    """Name a group after the first text of its first document."""
    first = next(iter(request.documents[0].values()))
    return reply(f"About {first}")
