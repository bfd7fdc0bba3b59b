"""What a caller may ask of labeling (contract, section 6)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from server.requests import RequestModel, Text


class LabelingInput(RequestModel):
    """One piece of text that a label is made from."""

    input_key: Text
    path: str = ""
    source_type: Literal["payload", "literal"] = "payload"


class LabelingInputs(RequestModel):
    """Which fields of a document the language model gets to see."""

    input_mappings: list[LabelingInput] = Field(default_factory=list)


class LLMLabeling(RequestModel):
    """How groups are named by a language model (contract, section 6)."""

    enabled: bool = False
    description: str = ""
    provider: str = ""
    model_name: str = ""
    include_summary: bool = True
    include_keywords: bool = True
    labeling_inputs: LabelingInputs = Field(default_factory=LabelingInputs)
    sample_selection_strategy: str = "nearest"
    max_samples_per_cluster: int = Field(default=10, ge=1, le=100)
    sample_text_max_length: int = Field(default=200, ge=1, le=10_000)
    cache_ttl_seconds: int = Field(default=604_800, ge=0)
    parameters: dict[str, Any] = Field(default_factory=dict)
