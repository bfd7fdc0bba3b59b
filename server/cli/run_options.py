"""The options of `shoal run` beyond one method on one vector, by subject."""

from __future__ import annotations

from typing import Annotated

import typer

from gpu.params import BUILT_METHODS

METHODS_HELP = f"{', '.join(BUILT_METHODS[:-1])} or {BUILT_METHODS[-1]}."

_FEATURES = "Several features"
_STRUCTURE = "Attributes and hierarchies"
_LABELS = "Names by a language model"

FeatureOption = Annotated[
    list[str] | None,
    typer.Option(
        "--feature",
        metavar="URI",
        help="Vector to cluster; repeatable (default: the only one).",
        rich_help_panel=_FEATURES,
    ),
]
StrategyOption = Annotated[
    str | None,
    typer.Option(
        "--strategy",
        help="concatenate (default), weighted or independent.",
        rich_help_panel=_FEATURES,
    ),
]
WeightOption = Annotated[
    list[str] | None,
    typer.Option(
        "--weight",
        metavar="URI=NUMBER",
        help="Weight of a feature (default: 1); repeatable. With weighted and none given they "
        "are learned.",
        rich_help_panel=_FEATURES,
    ),
]
OutputPerFeatureOption = Annotated[
    bool,
    typer.Option(
        "--output-per-feature",
        help="With independent: an output collection for each feature.",
        rich_help_panel=_FEATURES,
    ),
]
AttributeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--attribute",
        metavar="FIELD",
        help="Group by this payload field instead of a method; repeatable.",
        rich_help_panel=_STRUCTURE,
    ),
]
HierarchicalOption = Annotated[
    bool,
    typer.Option(
        "--hierarchical",
        help="Groups inside groups; with --attribute, the first attribute makes the parents.",
        rich_help_panel=_STRUCTURE,
    ),
]
MaxDepthOption = Annotated[
    int | None,
    typer.Option(
        "--max-depth",
        min=1,
        help="Levels of a hierarchy of vectors (default: 3).",
        rich_help_panel=_STRUCTURE,
    ),
]
ParentOption = Annotated[
    str | None,
    typer.Option(
        "--parent",
        metavar="CLUSTER",
        help="Cluster only the members of a group of this cluster.",
        rich_help_panel=_STRUCTURE,
    ),
]
ParentGroupOption = Annotated[
    str | None,
    typer.Option(
        "--parent-group",
        metavar="GROUP",
        help="That group, such as cl_3.",
        rich_help_panel=_STRUCTURE,
    ),
]
LabelOption = Annotated[
    bool,
    typer.Option("--label", help="Let a language model name the groups.", rich_help_panel=_LABELS),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="The model's name at its provider.", rich_help_panel=_LABELS),
]
ProviderOption = Annotated[
    str | None,
    typer.Option(
        "--provider",
        help="openai, google, anthropic or openai_compatible (default: by the model).",
        rich_help_panel=_LABELS,
    ),
]
LabelFieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--label-field",
        metavar="NAME=PATH",
        help="What the model reads of a document; repeatable (default: all of it).",
        rich_help_panel=_LABELS,
    ),
]
