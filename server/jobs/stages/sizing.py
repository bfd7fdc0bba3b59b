"""Whether a fit will have the memory it needs, asked before anything is exported."""

from __future__ import annotations

from qdrant_client import models

from gpu.backend import Backend, choose_backend
from gpu.clustering import require_memory
from gpu.errors import DeviceMemoryError
from gpu.params import parse_params
from server.errors import ShoalError
from server.export.filters import parse_filter
from server.export.pushdown import push_down
from server.export.sources import stored_spellings
from server.jobs.sources import SourceCollection
from server.jobs.stages.spreading import may_go_beyond
from server.jobs.stages.work import Work
from server.qdrant.client import qdrant_errors
from server.qdrant.schema import describe


def require_room(work: Work) -> None:
    """Refuse more documents than the method has memory for.

    Only what is sure is refused here: where a part of the filter can be checked on the exported
    rows alone, the fit itself finds out.

    Raises
    ------
    HostMemoryError, DeviceMemoryError
        Saying how many documents would fit.
    """
    spec, config = work.spec, work.spec.definition.vector_config
    if config is None or spec.assign_to is not None or spec.within is not None:
        return
    if may_go_beyond(work):  # Then the fit itself sees how it gets along.
        return
    counts = [_usable(work, source) for source in work.plan.sources]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return
    n_points = min(sum(known), config.sample_size or sum(known))
    params = parse_params(config.clustering_method, config.algorithm_params).params
    shape = (n_points, _n_dims(work))
    metrics = {feature.metric for feature in work.plan.features}
    # Qdrant keeps unit rows under Cosine, so no method copies them.
    metric = "manhattan" if metrics == {"manhattan"} else "euclidean"

    def require(backend: Backend) -> None:
        method = config.clustering_method
        require_memory(method, shape, params, backend, metric, has_vectors=False)

    try:
        require(choose_backend(spec.device))
    except DeviceMemoryError:
        if spec.device != "auto":
            raise
        require(Backend("cpu", ""))


def _n_dims(work: Work) -> int:
    """Give the dimensions that the method looks at, or at least so many."""
    if work.config.preprocessing_steps:
        return 1
    sizes = [feature.n_dims for feature in work.plan.features]
    return max(sizes) if work.config.multi_feature_strategy == "independent" else sum(sizes)


def _usable(work: Work, source: SourceCollection) -> int | None:
    """Count the documents that have the vectors and pass the filter; None where unknown."""
    must: list[models.Condition] = [
        models.HasVectorCondition(has_vector=name) for name in source.vector_names
    ]
    raw = work.spec.definition.filters
    if raw:
        split = push_down(
            parse_filter(raw),
            describe(work.client, source.qdrant_name).payload_indexes,
            variants=stored_spellings(work.client, source.qdrant_name),
        )
        if split.residual is not None:
            return None
        must += [split.qdrant] if split.qdrant is not None else []
    try:
        with qdrant_errors(source.qdrant_name):
            counted = work.client.count(
                source.qdrant_name, count_filter=models.Filter(must=must), exact=True
            )
    except ShoalError:
        return None  # The export that follows waits for Qdrant, and the fit looks again.
    return int(counted.count)
