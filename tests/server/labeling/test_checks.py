from __future__ import annotations

from typing import Any

import pytest

from server.labeling.checks import check_config, check_provider
from server.labeling.request import LLMLabeling
from server.labeling.settings import LabelingSettings, Provider, configured_providers


def config(**changes: Any) -> LLMLabeling:
    return LLMLabeling.model_validate({"enabled": True, **changes})


def mappings(*entries: dict[str, str]) -> LLMLabeling:
    return config(labeling_inputs={"input_mappings": list(entries)})


def fields(violations: list[Any]) -> list[str]:
    return [violation.field.removeprefix("llm_labeling.") for violation in violations]


def test_the_seeds_own_example_passes() -> None:
    inputs = [{"input_key": n, "path": n, "source_type": "payload"} for n in ("title", "text")]
    example = config(
        provider="openai",
        model_name="gpt-4o-mini-2024-07-18",
        labeling_inputs={"input_mappings": inputs},
    )

    assert check_config(example) == []
    assert check_config(config()) == []


def test_every_fault_is_told_at_once() -> None:
    broken = config(
        provider="openia",
        model_name="gpt\n4",
        sample_selection_strategy="nearst",
        parameters={"stream": True, "temperature": 0, "messages": []},
    )

    assert fields(check_config(broken)) == [
        "provider",
        "model_name",
        "sample_selection_strategy",
        "parameters.messages",
        "parameters.stream",
    ]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"input_key": "t", "path": ""}, "path"),
        ({"input_key": "t", "path": "a..b"}, "path"),
        ({"input_key": "t", "path": "a[0]"}, "path"),
        ({"input_key": "t", "path": " ", "source_type": "literal"}, "path"),
        ({"input_key": "t", "path": "x" * 2001, "source_type": "literal"}, "path"),
        ({"input_key": "ok", "path": "b"}, "input_key"),
    ],
)
def test_bad_mappings_are_refused(entry: dict[str, str], field: str) -> None:
    found = check_config(mappings({"input_key": "ok", "path": "a.b"}, entry))

    assert fields(found)[-1] == f"labeling_inputs.input_mappings[1].{field}"


@pytest.mark.parametrize(
    ("provider", "model", "asked"),
    [
        ("", "", "openai"),
        ("", "gpt-5", "openai"),
        ("", "o3-mini", "openai"),
        ("", "gemini-2.5-flash", "google"),
        ("", "claude-haiku-4-5", "anthropic"),
        ("", "llama-3", "openai"),
        ("openai_compatible", "claude-haiku-4-5", "openai_compatible"),
    ],
)
def test_the_provider_is_inferred_and_must_be_configured(
    provider: str, model: str, asked: str
) -> None:
    job = config(provider=provider, model_name=model)
    everything = configured_providers(
        {"openai": "k", "google": "k", "anthropic": "k"},
        {"openai_compatible": "http://127.0.0.1:1/v1"},
    )
    without = tuple(p for p in everything if p.name != asked)

    assert check_provider(job, LabelingSettings(everything)) == []
    (violation,) = check_provider(job, LabelingSettings(without))
    assert violation.field == "llm_labeling.provider"
    assert repr(asked) in violation.description
    assert check_provider(job.model_copy(update={"enabled": False}), LabelingSettings()) == []


def test_known_providers_need_a_key_and_the_compatible_one_an_address() -> None:
    made = configured_providers(
        {"openai": "k1", "google": "", "anthropic": None, "openai_compatible": None},
        {"openai": "https://proxy.test/v1", "openai_compatible": "http://127.0.0.1:8000/v1"},
    )

    assert made == (
        Provider("openai", "https://proxy.test/v1", "k1"),
        Provider("openai_compatible", "http://127.0.0.1:8000/v1", ""),
    )
    assert configured_providers({"openai_compatible": "k"}, {}) == ()
    assert configured_providers({"google": "k"}, {})[0].base_url.endswith("/v1beta/openai/")


def test_an_address_that_is_none_is_the_operators_fault() -> None:
    broken = LabelingSettings((Provider("openai", "example.org/v1", "k"),))

    (violation,) = check_provider(config(), broken)

    assert "no http(s) address" in violation.description


@pytest.mark.parametrize("name", ["concurrency", "timeout_s", "max_attempts", "max_groups"])
def test_settings_are_above_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be above 0, got 0"):
        LabelingSettings(**{name: 0})
