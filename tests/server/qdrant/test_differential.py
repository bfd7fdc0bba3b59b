"""The embedded server against qdrant-client's own local mode: same calls, same answers.

Local mode is an independent implementation of Qdrant's semantics, written in Python.
"""

import random
import uuid

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.models import FieldCondition, Filter

WORDS = ["a", "b", "c", "green apple", "Ünïcode", ""]
STAMPS = ["2024-01-01T00:00:00Z", "2024-05-05T12:30:00+02:00", "2024-12-31T23:59:59Z"]
KEYS = ["s", "n", "f", "b", "l", "mixed", "o.s", "o.n", "os[].n", "missing"]
N_POINTS = 80


def random_payload(rng):
    payload = {}
    options = {
        "s": lambda: rng.choice(WORDS),
        "n": lambda: rng.randint(-3, 3),
        "f": lambda: rng.randint(-8, 8) / 4,
        "b": lambda: rng.random() < 0.5,
        "l": lambda: [rng.choice(WORDS) for _ in range(rng.randint(0, 3))],
        "mixed": lambda: rng.choice([1, 1.0, "1", True, None, [], [1, "a"], {"s": "a"}]),
        "at": lambda: rng.choice(STAMPS),
        # Short decimals: Edge reads long ones back up to one unit in the last place off.
        "geo": lambda: {axis: round(rng.uniform(-20, 20), 3) for axis in ("lon", "lat")},
        "o": lambda: {"s": rng.choice(WORDS), "n": rng.randint(0, 2)},
        "os": lambda: [{"n": rng.randint(0, 2), "m": rng.randint(0, 2)} for _ in range(2)],
    }
    for key, make in options.items():
        if rng.random() < 0.7:
            payload[key] = make()
    return payload


def random_condition(rng, depth):
    key = rng.choice(KEYS)
    kind = rng.randrange(13)
    if kind == 0:
        value = rng.choice([*WORDS, -1, 0, 1, True, False])
        return FieldCondition(key=key, match=models.MatchValue(value=value))
    if kind == 1:
        values = rng.choice([WORDS[:2], ["1", "a"], [0, 1, 2], [3]])
        return FieldCondition(key=key, match=models.MatchAny(any=values))
    if kind == 2:
        values = rng.choice([["a"], ["b", "c"], [1], [0, -1]])
        return FieldCondition(key=key, match=models.MatchExcept(**{"except": values}))
    if kind in (3, 4):
        low = rng.randint(-4, 4) / 2
        bounds = rng.choice([{"gt": low}, {"gte": low}, {"lt": low}, {"gte": low, "lt": low + 1.5}])
        return FieldCondition(key=key, range=models.Range(**bounds))
    if kind == 5:
        bound = rng.choice(["gt", "gte", "lt", "lte"])
        return FieldCondition(key="at", range=models.DatetimeRange(**{bound: rng.choice(STAMPS)}))
    if kind == 6:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if kind == 7:
        return models.IsNullCondition(is_null=models.PayloadField(key=key))
    if kind == 8:
        ids = rng.sample(range(N_POINTS + 5), 20)
        return models.HasIdCondition(has_id=ids)
    if kind == 9:
        counts = models.ValuesCount(gte=rng.randint(0, 2))
        return FieldCondition(key="l", values_count=counts)
    if kind == 10:
        center = models.GeoPoint(lon=rng.uniform(-20, 20), lat=rng.uniform(-20, 20))
        return FieldCondition(
            key="geo", geo_radius=models.GeoRadius(center=center, radius=rng.uniform(1e5, 2e6))
        )
    if kind == 11:
        inner = Filter(
            must=[
                FieldCondition(key="n", match=models.MatchValue(value=rng.randint(0, 2))),
                FieldCondition(key="m", range=models.Range(gte=rng.randint(0, 2))),
            ]
        )
        return models.NestedCondition(nested=models.Nested(key="os", filter=inner))
    return random_filter(rng, depth - 1) if depth else random_condition(rng, 0)


def random_filter(rng, depth=2):
    def some(most):
        return [random_condition(rng, depth) for _ in range(rng.randint(0, most))] or None

    return Filter(must=some(2), should=some(2), must_not=some(1))


@pytest.fixture
def both(client, collection_name):
    """The client under test and local mode, both with the same empty collection."""
    local = QdrantClient(":memory:")
    name = collection_name()
    vectors = {
        "x": models.VectorParams(size=4, distance="Cosine"),
        "y": models.VectorParams(size=3, distance="Dot"),
    }
    for one in (client, local):
        one.create_collection(name, vectors_config=vectors)
    yield client, local, name
    local.close()


def random_point(rng, point_id):
    vectors = {
        "x": [rng.uniform(-1, 1) for _ in range(4)],
        "y": [rng.uniform(-1, 1) for _ in range(3)],
    }
    if rng.random() < 0.2:
        del vectors["y"]
    return models.PointStruct(id=point_id, vector=vectors, payload=random_payload(rng))


def contents(one, name, chosen=None):
    records, _ = one.scroll(name, scroll_filter=chosen, limit=1000, with_vectors=True)
    return {record.id: record for record in records}


def assert_same(mine, theirs, what):
    assert mine.keys() == theirs.keys(), what
    for point_id, record in mine.items():
        other = theirs[point_id]
        assert (record.payload or {}) == (other.payload or {}), what
        assert record.vector.keys() == other.vector.keys(), what
        for name, vector in record.vector.items():
            assert np.allclose(vector, other.vector[name], atol=1e-6), what


def test_random_filters_find_the_same_points(both):
    client, local, name = both
    rng = random.Random(20240229)
    points = [random_point(rng, i) for i in range(N_POINTS)]
    for one in (client, local):
        one.upsert(name, points)
    n_found = 0
    for case in range(400):
        chosen = random_filter(rng)
        mine = [r.id for r in client.scroll(name, scroll_filter=chosen, limit=1000)[0]]
        theirs = [r.id for r in local.scroll(name, scroll_filter=chosen, limit=1000)[0]]
        assert mine == sorted(theirs), (case, chosen)
        n_found += 0 < len(mine) < N_POINTS
    assert n_found > 150  # Most filters choose some but not all points.


def test_random_operations_leave_the_same_points(both):
    client, local, name = both
    rng = random.Random(7)
    ids = [*range(20), *(str(uuid.UUID(int=i)) for i in range(1, 11))]
    present = set()

    def some_present(most):
        known = sorted(present, key=str)
        return rng.sample(known, min(len(known), rng.randint(1, most)))

    for step in range(250):
        kind = rng.randrange(8)
        if kind <= 1 or not present:
            points = [random_point(rng, i) for i in rng.sample(ids, 4)]
            present |= {point.id for point in points}
            operation = {"upsert": points}
        elif kind == 2:
            doomed = some_present(2)
            present -= set(doomed)
            operation = {"delete": doomed}
        elif kind == 3:
            operation = {"set": (some_present(5), random_payload(rng))}
        elif kind == 4:
            operation = {"overwrite": (some_present(3), random_payload(rng))}
        elif kind == 5:
            operation = {"drop keys": (some_present(5), rng.sample(["s", "n", "o.n", "l"], 2))}
        elif kind == 6:
            vectors = {"x": [rng.uniform(-1, 1) for _ in range(4)]}
            operation = {"vectors": (some_present(2), vectors)}
        else:
            chosen = Filter(
                must=[FieldCondition(key="n", match=models.MatchValue(value=rng.randint(-3, 3)))]
            )
            operation = {"set where": (chosen, {"marked": step})}
        for one in (client, local):
            apply(one, name, operation)
        if step % 5 == 0:
            assert_same(contents(client, name), contents(local, name), (step, operation))
    assert_same(contents(client, name), contents(local, name), "end")


def apply(one, name, operation):
    ((kind, what),) = operation.items()
    if kind == "upsert":
        one.upsert(name, what)
    elif kind == "delete":
        one.delete(name, points_selector=what)
    elif kind in ("set", "set where"):
        one.set_payload(name, what[1], points=what[0])
    elif kind == "overwrite":
        one.overwrite_payload(name, what[1], points=what[0])
    elif kind == "drop keys":
        one.delete_payload(name, what[1], points=what[0])
    else:
        one.update_vectors(name, [models.PointVectors(id=i, vector=what[1]) for i in what[0]])


@pytest.mark.parametrize("distance", ["Cosine", "Euclid", "Dot", "Manhattan"])
def test_searches_find_the_same_points_with_the_same_scores(client, collection_name, distance):
    local = QdrantClient(":memory:")
    name = collection_name()
    rng = np.random.default_rng(11)
    points = [
        models.PointStruct(id=i, vector=vector, payload={"n": i % 3})
        for i, vector in enumerate(rng.normal(size=(60, 5)).tolist())
    ]
    chosen = Filter(must=[FieldCondition(key="n", range=models.Range(lt=2))])
    for one in (client, local):
        one.create_collection(name, vectors_config=models.VectorParams(size=5, distance=distance))
        one.upsert(name, points)
    for query in rng.normal(size=(10, 5)).tolist():
        mine, theirs = (
            one.query_points(name, query=query, limit=7, query_filter=chosen).points
            for one in (client, local)
        )
        assert [hit.id for hit in mine] == [hit.id for hit in theirs]
        assert np.allclose([h.score for h in mine], [h.score for h in theirs], atol=1e-5)
    local.close()
