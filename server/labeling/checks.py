"""What can be wrong with a labeling job before it runs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, get_args
from urllib.parse import urlsplit

from server.errors import Violation
from server.export.paths import path_fault
from server.labeling.client import RESERVED_PARAMETERS
from server.labeling.representatives import Strategy
from server.labeling.settings import (
    OPENAI_COMPATIBLE,
    PROVIDERS,
    LabelingSettings,
    infer_provider,
)

if TYPE_CHECKING:
    from server.labeling.request import LLMLabeling

MAX_LITERAL_CHARS: Final = 2_000
MAX_MODEL_CHARS: Final = 200


def strategy_of(config: LLMLabeling) -> Strategy:
    """Give the job's sample selection, which `check_config` has let pass."""
    return "representative" if config.sample_selection_strategy == "representative" else "nearest"


def check_config(config: LLMLabeling) -> list[Violation]:
    """Check what needs no settings: names, paths, and parameters that are ours to set."""
    found = []
    if config.provider and config.provider not in PROVIDERS:
        found.append(
            Violation(
                "llm_labeling.provider",
                f"{config.provider!r} is not a provider; allowed: {', '.join(PROVIDERS)}",
            )
        )
    if len(config.model_name) > MAX_MODEL_CHARS or not config.model_name.isprintable():
        found.append(
            Violation(
                "llm_labeling.model_name",
                f"at most {MAX_MODEL_CHARS} printable characters are allowed",
            )
        )
    if config.sample_selection_strategy not in get_args(Strategy):
        found.append(
            Violation(
                "llm_labeling.sample_selection_strategy",
                f"{config.sample_selection_strategy!r} is not a strategy; allowed: "
                f"{', '.join(get_args(Strategy))}",
            )
        )
    found += [
        Violation(
            f"llm_labeling.parameters.{name}",
            "is set by the service; leave it out",
        )
        for name in sorted(RESERVED_PARAMETERS & set(config.parameters))
    ]
    return [*found, *_check_mappings(config)]


def check_provider(config: LLMLabeling, settings: LabelingSettings) -> list[Violation]:
    """Check that the provider a job needs can be asked at all; nothing is sent anywhere."""
    name = infer_provider(config.provider, settings.model(config.model_name))
    if not config.enabled or name not in PROVIDERS:
        return []
    provider = settings.provider(name)
    if provider is None:
        lacks = "base URL" if name == OPENAI_COMPATIBLE else "API key"
        have = ", ".join(p.name for p in settings.providers) or "none"
        return [
            Violation(
                "llm_labeling.provider",
                f"this server has no {lacks} for {name!r}; it has: {have}. Choose one of those "
                "by provider and model_name, or ask the operator to configure it",
            )
        ]
    if urlsplit(provider.base_url).scheme not in ("http", "https"):
        return [
            Violation(
                "llm_labeling.provider",
                f"this server's base URL for {name!r} is no http(s) address; ask the operator",
            )
        ]
    return []


def _check_mappings(config: LLMLabeling) -> list[Violation]:
    mappings = config.labeling_inputs.input_mappings
    times = Counter(mapping.input_key for mapping in mappings)
    found = []
    for position, mapping in enumerate(mappings):
        at = f"llm_labeling.labeling_inputs.input_mappings[{position}]"
        if times[mapping.input_key] > 1:
            found.append(Violation(f"{at}.input_key", f"{mapping.input_key!r} is mapped twice"))
        if mapping.source_type == "payload":
            fault = path_fault(mapping.path)
        elif not mapping.path.strip():
            fault = "the literal text is empty"
        elif len(mapping.path) > MAX_LITERAL_CHARS:
            fault = f"at most {MAX_LITERAL_CHARS} characters are allowed, got {len(mapping.path)}"
        else:
            fault = None
        if fault is not None:
            found.append(Violation(f"{at}.path", fault))
    return found
