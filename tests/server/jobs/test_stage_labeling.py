"""What the stage label hands to labeling, which knows no GPU."""

import sys

import numpy as np
import pyarrow as pa
from strict_arrays import StrictArray, StrictModule

from server.jobs.stages.labeling import _vectors
from server.jobs.stages.loading import Documents
from server.labeling.representatives import choose
from server.labeling.request import LLMLabeling


def test_vectors_on_the_device_are_given_to_labeling_on_the_host(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", StrictModule("cupy"))
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    ids = pa.chunked_array([[str(n) for n in range(60)]])
    documents = Documents(ids, ids, (StrictArray(rows),), ())
    config = LLMLabeling.model_construct(enabled=True, sample_selection_strategy="representative")
    options = {"per_group": 3, "strategy": "representative"}

    vectors = _vectors(documents, config)

    assert isinstance(vectors, np.ndarray)
    given, expected = (choose([np.arange(60)], vectors=each, **options) for each in (vectors, rows))
    assert np.array_equal(given[0], expected[0])
