"""The spaces that a run looks for groups in: one feature each, or all of them as one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu import feature_weights, features
from server.jobs.sources import METRIC_OF_DISTANCE, Feature, joined_distance
from server.jobs.stages.loading import Documents
from server.jobs.stages.work import Array, Work


@dataclass(frozen=True)
class Space:
    """Vectors that are clustered together.

    Attributes
    ----------
    feature : Feature or None
        The feature alone in it, where each has its own; else None.
    vectors : array of shape (n_documents, n_dims), float32
        Centroids and distances are told in this space.
    metric : str
        As `gpu` calls it.
    distance : str
        As Qdrant calls it.
    """

    feature: Feature | None
    vectors: Array
    metric: str
    distance: str


@dataclass(frozen=True)
class Spaces:
    """All spaces of a run, and the weights that were learned for them, if any.

    `learned_weights` maps each feature to its weight.
    """

    spaces: tuple[Space, ...]
    learned_weights: dict[str, float] | None = None
    learning_quality_score: float | None = None


def make_spaces(
    work: Work,
    documents: Documents,
    n_clusters: int | None,
    seed: int,
    known: Spaces | None = None,
) -> Spaces:
    """Lay the features out as the definition's strategy says.

    Weights are learned where the strategy wants it, unless another run's are `known`.
    """
    planned = work.plan.features
    if len(planned) == 1:
        only = planned[0]
        return Spaces((Space(None, documents.blocks[0], only.metric, only.distance),))
    if work.config.multi_feature_strategy == "independent":
        return Spaces(
            tuple(
                Space(feature, block, feature.metric, feature.distance)
                for feature, block in zip(planned, documents.blocks, strict=True)
            )
        )
    weights = [float(work.config.feature_weights.get(each.name, 1.0)) for each in planned]
    learned = None
    if known is not None and known.learned_weights is not None:
        weights = [known.learned_weights[each.name] for each in planned]
    elif work.config.multi_feature_strategy == "weighted" and not work.config.feature_weights:
        learned = feature_weights.learn_weights(
            documents.blocks,
            n_clusters=n_clusters,
            normalize=work.config.normalize_features,
            seed=seed,
        )
        weights = list(learned.weights)
        work.warnings += learned.notes
    joined = features.concatenate(
        documents.blocks, weights, normalize=work.config.normalize_features
    )
    distance = joined_distance(
        [each.distance for each in planned], normalize=work.config.normalize_features
    )
    space = Space(None, joined, METRIC_OF_DISTANCE[distance], distance)
    if known is not None:
        return replace(known, spaces=(space,))
    if learned is None:
        return Spaces((space,))
    named = {each.name: weight for each, weight in zip(planned, weights, strict=True)}
    return Spaces((space,), named, learned.quality)
