"""A chat server, and labeling settings that know it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.labeling.settings import LabelingSettings, Provider
from tests.server.labeling.chat_server import ChatServer

KEY = "sk-very-secret"


@pytest.fixture
def chat() -> Iterator[ChatServer]:
    server = ChatServer()
    yield server
    server.close()


@pytest.fixture
def settings(chat: ChatServer) -> LabelingSettings:
    """Patience in milliseconds: what is tested is order and count, not the wait."""
    return LabelingSettings(
        providers=(
            Provider("openai", chat.base_url, KEY),
            Provider("openai_compatible", chat.base_url),
        ),
        concurrency=4,
        timeout_s=5.0,
        max_attempts=3,
        backoff_s=0.001,
    )
