"""Asking a model over OpenAI's chat protocol: patience, and what kind of failure it was.

The only file that imports `openai`, and it does so when a client is opened. Its own retries
are off: ours share one pause among all requests of a run, so that a provider that asks to
wait is left alone, and stop at faults that no retry can mend.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from server.labeling.settings import LabelingSettings, Provider

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

MAX_RETRY_AFTER_S: Final = 60.0
MAX_BACKOFF_S: Final = 20.0
NO_KEY: Final = "none"
"""Sent where a server needs no key: the package wants one."""

# Set by us, in every request; a job's own parameters may not touch them.
RESERVED_PARAMETERS: Final = frozenset(
    {
        "model", "messages", "response_format", "stream", "stream_options", "n", "tools",
        "tool_choice", "functions", "function_call", "parallel_tool_calls",
    }
)  # fmt: skip

_PASSING_STATUS: Final = frozenset({408, 409, 425, 429})
_SETTINGS_STATUS: Final = frozenset({401, 403, 404, 405})
_UNPAID_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

FailureKind = Literal["request", "settings", "passing"]


@dataclass(frozen=True)
class Answer:
    """What a model said. `refusal` is set where it would not."""

    content: str | None
    refusal: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why there is no answer.

    Attributes
    ----------
    kind : str
        ``request``: this prompt was refused, another may pass. ``settings``: no request of
        this run can succeed. ``passing``: the provider is away, slow or busy.
    why : str
        The same words for the same fault, so that groups can be gathered under it.
    detail : str
        What this time was told; holds no key, and of a prompt only what a provider quotes.
    """

    kind: FailureKind
    why: str
    detail: str = ""


@dataclass
class Usage:
    """Tokens as the provider counted them, and HTTP requests made, retries included."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    requests: int = 0


class ModelClient:
    """One model at one provider, for the length of a run: `open` it, `ask`, `close` it."""

    def __init__(
        self,
        provider: Provider,
        model: str,
        settings: LabelingSettings,
        parameters: Mapping[str, Any],
    ) -> None:
        self.usage = Usage()
        self._provider = provider
        self._model = model
        self._settings = settings
        self._parameters = {k: v for k, v in parameters.items() if k not in RESERVED_PARAMETERS}
        self._takes_format: bool | None = None  # None until an answer tells.
        self._quiet_until = 0.0
        self._client: AsyncOpenAI | None = None

    def open(self) -> Failure | None:
        """Get ready to ask; gives what is wrong with the provider's settings, if anything."""
        from openai import AsyncOpenAI

        try:
            client = AsyncOpenAI(
                api_key=self._provider.api_key or NO_KEY,
                base_url=self._provider.base_url,
                timeout=self._settings.timeout_s,
                max_retries=0,
            )
        except Exception as error:  # Whatever the package and its HTTP library dislike.
            return Failure("settings", "cannot be asked", self._tidy(str(error)))
        # The package takes these from the environment, and would send them to any provider.
        client.organization = client.project = None
        self._client = client
        return None

    async def close(self) -> None:
        """Let the connections go."""
        if self._client is not None:
            await self._client.close()

    async def ask(
        self, messages: list[dict[str, str]], response_format: Mapping[str, Any]
    ) -> Answer | Failure:
        """Ask until there is an answer, or a fault that waiting does not mend.

        A provider that refuses `response_format` itself is asked again without it, from then
        on for the whole run: the prompt describes the fields too.
        """
        if self._takes_format is False:
            return await self._patiently(messages, None)
        outcome = await self._patiently(messages, response_format)
        if isinstance(outcome, Answer):
            self._takes_format = True
        elif outcome.kind == "request" and self._takes_format is None:
            plain = await self._patiently(messages, None)
            if isinstance(plain, Answer):
                self._takes_format = False
                return plain
        return outcome

    async def find_fault(self) -> Failure | None:
        """Ask for the list of models, once."""
        import openai

        if self._client is None:
            raise RuntimeError("the client is not open")
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._client.models.with_raw_response.list()
        except openai.NotFoundError:  # It answers, and has no such list.
            return None
        except (TimeoutError, openai.OpenAIError) as error:
            return self._failure_of(error)
        return None

    async def _patiently(
        self, messages: list[dict[str, str]], response_format: Mapping[str, Any] | None
    ) -> Answer | Failure:
        failure = Failure("passing", "not asked")
        for attempt in range(self._settings.max_attempts):
            await self._wait_until_welcome()
            outcome, retry_after_s = await self._once(messages, response_format)
            if isinstance(outcome, Answer) or outcome.kind != "passing":
                return outcome
            failure = outcome
            if retry_after_s and retry_after_s > MAX_RETRY_AFTER_S:
                too_long = f"it asks to wait {retry_after_s:.0f} s"
                return Failure("passing", failure.why, f"{failure.detail}; {too_long}".lstrip("; "))
            if retry_after_s:
                self._quiet_until = max(self._quiet_until, time.monotonic() + retry_after_s)
            elif attempt + 1 < self._settings.max_attempts:
                await asyncio.sleep(self._backoff_s(attempt))
        why = f"{failure.why} in {self._settings.max_attempts} attempts"
        return Failure("passing", why, failure.detail)

    async def _wait_until_welcome(self) -> None:
        # Asked again after each sleep: another request may have been told to wait longer.
        while (left_s := self._quiet_until - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left_s)

    def _backoff_s(self, attempt: int) -> float:
        pause_s = min(self._settings.backoff_s * 2.0**attempt, MAX_BACKOFF_S)
        return pause_s * (1 + random.random() / 4)

    async def _once(
        self, messages: list[dict[str, str]], response_format: Mapping[str, Any] | None
    ) -> tuple[Answer | Failure, float | None]:
        """Make one request. Gives its outcome, and how long the provider asks to wait."""
        import openai

        if self._client is None:
            raise RuntimeError("the client is not open")
        format_part = {} if response_format is None else {"response_format": response_format}
        create: Any = self._client.chat.completions.with_raw_response.create
        self.usage.requests += 1
        try:
            # The package's own limit is for each read: a slow drip would never end.
            async with asyncio.timeout(self._settings.timeout_s):
                response = await create(
                    model=self._model, messages=messages, extra_body=self._parameters, **format_part
                )
        except openai.APIStatusError as error:
            return self._failure_of(error), _retry_after_s(error.response.headers)
        except (TimeoutError, openai.OpenAIError) as error:
            return self._failure_of(error), None
        return self._read(response.content), None

    def _failure_of(self, error: Exception) -> Failure:
        import openai

        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return Failure("passing", f"no answer within {self._settings.timeout_s:g} s")
        if isinstance(error, openai.APIStatusError):
            return self._status_failure(error)
        if isinstance(error, openai.APIConnectionError):
            return Failure("passing", "no connection", self._tidy(str(error.__cause__ or error)))
        return Failure("request", type(error).__name__, self._tidy(str(error)))

    def _read(self, body: bytes) -> Answer | Failure:
        """Take the answer out of a successful response, which may still be anything."""
        try:
            parsed = json.loads(body)
            message = parsed["choices"][0]["message"]
            content, refusal = message.get("content"), message.get("refusal")
            usage = parsed.get("usage") or {}
            tokens = [int(usage.get(f"{part}_tokens") or 0) for part in ("prompt", "completion")]
        except (ValueError, LookupError, TypeError, AttributeError):
            return Failure("passing", "the response is no chat completion")
        self.usage.prompt_tokens += tokens[0]
        self.usage.completion_tokens += tokens[1]
        return Answer(
            content if isinstance(content, str) else None,
            refusal if isinstance(refusal, str) else None,
        )

    def _status_failure(self, error: APIStatusError) -> Failure:
        status = error.status_code
        if status in (401, 403):  # Their texts quote keys, so they are not passed on.
            return Failure("settings", f"the key was refused (HTTP {status})")
        told = error.body.get("message") if isinstance(error.body, dict) else None
        detail = self._tidy(told if isinstance(told, str) else error.message)
        kind: FailureKind = "request"
        if status in _SETTINGS_STATUS or error.code in _UNPAID_CODES:
            kind = "settings"
        elif status in _PASSING_STATUS or status >= 500:
            kind = "passing"
        return Failure(kind, f"HTTP {status}", detail)

    def _tidy(self, text: str) -> str:
        """Put a foreign text on one short line without the key."""
        if self._provider.api_key:
            text = text.replace(self._provider.api_key, "***")
        line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return line if len(line) <= 200 else line[:199] + "…"


async def find_fault(provider: Provider, settings: LabelingSettings) -> Failure | None:
    """Ask a provider for its models, which costs nothing; gives what is wrong, if anything."""
    client = ModelClient(provider, "", settings, {})
    failure = client.open()
    if failure is not None:
        return failure
    try:
        return await client.find_fault()
    finally:
        await client.close()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds to wait: ``retry-after-ms``, or ``retry-after`` as seconds or date."""
    sent = headers.get("retry-after-ms"), headers.get("retry-after")
    for value, scale in zip(sent, (1000.0, 1.0), strict=True):
        if value is None:
            continue
        try:
            seconds = float(value) / scale
        except ValueError:
            seconds = _seconds_until(value)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _seconds_until(date: str) -> float:
    try:
        return max(parsedate_to_datetime(date).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return math.nan
