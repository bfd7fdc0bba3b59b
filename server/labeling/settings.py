"""What labeling needs besides the job: providers with their keys, patience and prices.

All providers speak OpenAI's chat protocol. Values come from `server/config.py`; this module
reads no environment. Settings travel to the worker that labels, so they pickle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

OPENAI: Final = "openai"
OPENAI_COMPATIBLE: Final = "openai_compatible"
DEFAULT_MODEL: Final = "gpt-4o-mini-2024-07-18"

# Where each provider speaks OpenAI's protocol; the last is wherever the operator says.
DEFAULT_BASE_URLS: Final[Mapping[str, str]] = {
    OPENAI: "https://api.openai.com/v1",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai/",
    "anthropic": "https://api.anthropic.com/v1/",
}
PROVIDERS: Final = (*DEFAULT_BASE_URLS, OPENAI_COMPATIBLE)

_MODEL_FAMILIES: Final = (
    (re.compile(r"gpt-|chatgpt-|o\d"), OPENAI),
    (re.compile(r"gemini|gemma"), "google"),
    (re.compile(r"claude"), "anthropic"),
)


@dataclass(frozen=True)
class Provider:
    """One place that answers chat requests.

    Attributes
    ----------
    name : str
        One of `PROVIDERS`.
    base_url : str
        Its address up to, and without, ``/chat/completions``.
    api_key : str
        Never shown; may be empty for `openai_compatible`, whose servers often need none.
    """

    name: str
    base_url: str
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Price:
    """What a model costs, in US dollars per million tokens."""

    prompt_usd: float
    completion_usd: float

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Give the price of so many tokens."""
        return (prompt_tokens * self.prompt_usd + completion_tokens * self.completion_usd) / 1e6


DEFAULT_PRICES: Final[Mapping[str, Price]] = {
    "gpt-4o-mini": Price(0.15, 0.60),
    DEFAULT_MODEL: Price(0.15, 0.60),
}
"""List prices; the operator's own table wins. A model without a price has no cost."""


@dataclass(frozen=True)
class LabelingSettings:
    """How models are asked.

    Attributes
    ----------
    providers : tuple of Provider
        Those with a key (or, for `openai_compatible`, an address).
    default_model : str
        The model of a job that names none.
    concurrency : int
        Requests under way at once, in one run.
    timeout_s : float
        Seconds one request may take in all.
    max_attempts : int
        Requests made for one answer while only passing faults come back.
    backoff_s : float
        Pause after the first passing fault; doubled for each further one, plus up to a
        quarter of it by chance. A provider's ``retry-after`` wins.
    max_groups : int
        Groups that one run may ask for, the first ones; the rest keeps fallback names.
    prices : mapping of str to Price
        By model name.
    """

    providers: tuple[Provider, ...] = ()
    default_model: str = DEFAULT_MODEL
    concurrency: int = 4
    timeout_s: float = 30.0
    max_attempts: int = 4
    backoff_s: float = 0.5
    max_groups: int = 5_000
    prices: Mapping[str, Price] = field(default_factory=lambda: dict(DEFAULT_PRICES))

    def __post_init__(self) -> None:
        for name in ("concurrency", "timeout_s", "max_attempts", "max_groups"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")

    def model(self, name: str) -> str:
        """Give the model that a job asks for, or the default."""
        return name or self.default_model

    def provider(self, name: str) -> Provider | None:
        """Find a configured provider."""
        return next((provider for provider in self.providers if provider.name == name), None)


def infer_provider(provider: str, model: str) -> str:
    """Give the provider that was named, else the one whose model family it is, else openai."""
    if provider:
        return provider
    family = (name for pattern, name in _MODEL_FAMILIES if pattern.match(model))
    return next(family, OPENAI)


def configured_providers(
    keys: Mapping[str, str | None], base_urls: Mapping[str, str | None]
) -> tuple[Provider, ...]:
    """Make the providers that can be asked, from keys and addresses by provider name.

    A known provider needs a key, and its address may be another than the default;
    `openai_compatible` needs an address.
    """
    made = []
    for name in PROVIDERS:
        key = keys.get(name) or ""
        base_url = base_urls.get(name) or DEFAULT_BASE_URLS.get(name)
        if base_url and (key or name == OPENAI_COMPATIBLE):
            made.append(Provider(name, base_url, key))
    return tuple(made)
