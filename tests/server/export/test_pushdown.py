"""What Qdrant is asked and what is left, together, select what the contract says."""

import datetime
import uuid
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from server.export.evaluate import matches
from server.export.filters import parse_filter
from server.export.pushdown import push_down
from server.export.sources import stored_spellings

PARAMS = models.VectorParams(size=2, distance=models.Distance.DOT)
TEXTS = ["x", "X", "Xy z", "12", "2024-05-01", "2024-05-01T02:00:00+02:00", "2024-05-01T01:00:00Z"]
NUMBERS = [0, 1, 1.0, 2, 2.5, -1, 2**53 - 1, 2**53 + 1]
PLACES = [{"lat": 0, "lon": 0}, {"lat": 1.0, "lon": 1.0}, {"lat": 0, "lon": 179.5}]
scalars = st.sampled_from([*TEXTS, *NUMBERS, True, False])
leaf = st.one_of(scalars, st.none(), st.sampled_from(PLACES))
value = st.one_of(leaf, st.lists(leaf, max_size=3))
inner = st.dictionaries(st.sampled_from(["b", "c"]), value, max_size=2)
document = st.fixed_dictionaries(
    {},
    optional={
        "a": st.one_of(inner, st.lists(inner, max_size=3), value, st.lists(leaf | inner)),
        "k": value,
        "n": value,
    },
)
sendable = scalars.filter(lambda v: not (type(v) is int and abs(v) >= 2**53))
square = {"top_left": {"lat": 2, "lon": -1}, "bottom_right": {"lat": -1, "lon": 1}}
ring = {"exterior": [{"lat": -1, "lon": -1}, {"lat": 2, "lon": -1}, {"lat": 2, "lon": 0.5}]}
claim = st.one_of(
    st.tuples(st.sampled_from(["eq", "ne"]), sendable),
    st.tuples(st.sampled_from(["in", "nin"]), st.lists(sendable, min_size=1, max_size=3)),
    st.tuples(
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        st.sampled_from([v for v in (*NUMBERS, *TEXTS[4:]) if v != 2**53 + 1]),
    ),
    st.tuples(st.sampled_from(["exists", "is_null"]), st.booleans()),
    st.tuples(st.sampled_from(["contains", "starts_with", "ends_with"]), st.sampled_from("xYz")),
    st.just(("geo_radius", {"center": PLACES[0], "radius": 100_000})),
    st.just(("geo_bounding_box", square)),
    st.just(("geo_polygon", ring)),
)


@st.composite
def condition(draw):
    operator, wanted = draw(claim)
    made = {
        "field": draw(st.sampled_from(["a", "a.b", "a.c", "k", "n"])),
        "operator": operator,
        "value": wanted,
    }
    if draw(st.booleans()):
        made["case_sensitive"] = draw(st.booleans())
    return made


groups = st.recursive(
    condition(),
    lambda below: st.dictionaries(
        st.sampled_from(["AND", "OR", "NOT"]), st.lists(below, min_size=1, max_size=3), min_size=1
    ),
    max_leaves=6,
)


def plain_instant(text):
    """An independent reading of dates, by the standard library."""
    try:
        read = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    if len(text) < 10:
        return None
    return read if read.tzinfo else read.replace(tzinfo=datetime.UTC)


def plain_values(node, keys):
    if not keys:
        return [node]
    if isinstance(node, list):
        return [v for i in node if isinstance(i, dict) for v in plain_values(i, keys)]
    if isinstance(node, dict) and keys[0] in node:
        below = node[keys[0]]
        return plain_values(below, keys[1:]) if keys[1:] else [below]
    return []


def plain_equal(stored, wanted, case):
    if type(stored) is bool or type(wanted) is bool:
        return type(stored) is type(wanted) and stored == wanted
    if isinstance(stored, str) and isinstance(wanted, str):
        a, b = plain_instant(stored), plain_instant(wanted)
        if a and b and a == b:
            return True
        return stored == wanted if case else stored.casefold() == wanted.casefold()
    if isinstance(stored, int | float) and isinstance(wanted, int | float):
        return Fraction(stored) == Fraction(wanted)
    return False


def plain_compare(operator, stored, wanted):
    if isinstance(wanted, str):
        stored, wanted = isinstance(stored, str) and plain_instant(stored), plain_instant(wanted)
        if not stored:
            return False
    elif type(stored) is bool or not isinstance(stored, int | float):
        return False
    return {
        "gt": stored > wanted,
        "gte": stored >= wanted,
        "lt": stored < wanted,
        "lte": stored <= wanted,
    }[operator]


def plain_element(operator, stored, wanted, case):
    if operator in ("eq", "ne"):
        return plain_equal(stored, wanted, case) == (operator == "eq")
    if operator in ("in", "nin"):
        return any(plain_equal(stored, w, case) for w in wanted) == (operator == "in")
    if operator in ("gt", "gte", "lt", "lte"):
        return plain_compare(operator, stored, wanted)
    if operator.startswith("geo"):
        # Of the three places only the origin and, but for the ring, none other is inside.
        near = isinstance(stored, dict) and stored.get("lat") == 0 and stored.get("lon") == 0
        corner = isinstance(stored, dict) and stored.get("lat") == 1 and stored.get("lon") == 1
        return {
            "geo_radius": near,
            "geo_bounding_box": near or corner,
            "geo_polygon": False,
        }[operator]
    if not isinstance(stored, str):
        return False
    if not case:
        stored, wanted = stored.casefold(), wanted.casefold()
    found = stored.find(wanted)
    return {
        "contains": found >= 0,
        "starts_with": found == 0,
        "ends_with": stored[-len(wanted) :] == wanted,
    }[operator]


def plain_passes(raw, payload):
    if "field" not in raw:
        return (
            all(plain_passes(item, payload) for item in raw.get("AND", []))
            and (not raw.get("OR") or any(plain_passes(item, payload) for item in raw["OR"]))
            and not any(plain_passes(item, payload) for item in raw.get("NOT", []))
        )
    operator, wanted, case = raw["operator"], raw["value"], raw.get("case_sensitive", False)
    values = plain_values(payload, raw["field"].split("."))
    flat = [e for v in values for e in (v if isinstance(v, list) else [v])]
    if operator == "exists":
        return (len(values) > 0) == wanted
    if operator == "is_null":
        if wanted:
            return not values or any(e is None for e in flat)
        return any(v == [] for v in values) or any(e is not None for e in flat)
    if not flat:
        return operator in ("ne", "nin")
    return any(plain_element(operator, e, wanted, case) for e in flat)


@pytest.fixture(scope="module")
def memory():
    local = QdrantClient(":memory:")
    local.create_collection("docs", vectors_config=PARAMS)
    yield local
    local.close()


def selected(client, name, pushdown):
    rows, _ = client.scroll(name, scroll_filter=pushdown.qdrant, limit=1000)
    return {
        row.id
        for row in rows
        if pushdown.residual is None or matches(pushdown.residual, row.payload)
    }


def spellings(documents, field, wanted):
    return {
        e
        for payload in documents
        for v in plain_values(payload, field.replace("[]", "").split("."))
        for e in (v if isinstance(v, list) else [v])
        if isinstance(e, str) and e.casefold() == wanted.casefold()
    }


def check(client, name, documents, raw, indexes, variants):
    client.delete(name, points_selector=models.Filter(), wait=True)
    client.upsert(
        name,
        [models.PointStruct(id=i, vector=[1, 2], payload=p) for i, p in enumerate(documents)],
        wait=True,
    )
    filter = parse_filter(raw)
    pushdown = push_down(filter, indexes, variants=variants)

    expected = {i for i, payload in enumerate(documents) if plain_passes(raw, payload)}
    assert {i for i, p in enumerate(documents) if matches(filter, p)} == expected
    assert selected(client, name, pushdown) == expected


examples = given(documents=st.lists(document, min_size=1, max_size=8), raw=groups)
reproducible = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@settings(reproducible, max_examples=400)
@examples
def test_pushed_and_residual_select_exactly_the_rows(memory, documents, raw):
    check(memory, "docs", documents, raw, {}, None)


@settings(reproducible, max_examples=200)
@examples
def test_known_spellings_select_exactly_the_rows(memory, documents, raw):
    kinds = {"k": "keyword", "a": "keyword"}
    check(memory, "docs", documents, raw, kinds, lambda k, v: sorted(spellings(documents, k, v)))


@pytest.fixture(scope="module")
def indexed(client):
    """A collection of the storage engine itself, whose indexes hold only their own type."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    client.create_collection(name, vectors_config=PARAMS)
    kinds = {"a": "float", "a[].b": "datetime", "k": "keyword", "n": "integer"}
    for key, kind in kinds.items():
        client.create_payload_index(name, key, models.PayloadSchemaType(kind), wait=True)
    yield name, kinds
    client.delete_collection(name)


@settings(reproducible, max_examples=100)
@examples
def test_the_storage_engine_and_its_indexes_lose_no_row(client, indexed, documents, raw):
    name, kinds = indexed
    check(client, name, documents, raw, kinds, stored_spellings(client, name))


def test_paths_through_lists_are_pushed_in_every_spelling(memory):
    documents = [{"a": {"b": 1}}, {"a": [{"b": 0}, {"b": [1]}]}, {"a": [[{"b": 1}]]}, {"a.b": 1}]
    raw = {"AND": [{"field": "a.b", "operator": "eq", "value": 1}]}
    assert pushed(raw).residual is None
    check(memory, "docs", documents, raw, {}, None)


def pushed(raw, indexes=None, variants=None):
    return push_down(parse_filter(raw), indexes, variants=variants)


@pytest.mark.parametrize(
    "raw",
    [
        {"field": "a", "operator": "gte", "value": 3},
        {"AND": [{"n": 3}], "NOT": [{"flag": True}]},
        {"field": "k", "value": "Exact", "case_sensitive": True},
        {"OR": [{"n": 1}, {"field": "k", "operator": "in", "value": ["12", 4, False]}]},
    ],
)
def test_what_qdrant_does_exactly_leaves_nothing(raw):
    split = pushed(raw)
    assert split.qdrant is not None
    assert split.residual is None


@pytest.mark.parametrize(
    "raw",
    [
        {"status": "active"},
        {"field": "k", "operator": "ne", "value": 1},
        {"field": "k", "operator": "regex", "value": "x"},
        {"NOT": [{"field": "d", "operator": "gt", "value": "2024-05-01"}]},
        {"OR": [{"n": 1}, {"status": "active"}]},
        {"field": "strange key!", "value": 1},
    ],
)
def test_what_qdrant_cannot_do_is_kept_whole(raw):
    split = pushed(raw)
    assert split.qdrant is None
    assert split.residual == parse_filter(raw)


def test_an_integer_index_is_not_trusted_with_numbers():
    raw = {"field": "n", "operator": "gt", "value": 2}
    assert pushed(raw, {"n": "integer"}).qdrant is None
    assert pushed(raw, {"n": "float"}).qdrant is not None


def test_equality_without_case_is_exact_when_all_spellings_are_known():
    split = pushed({"k": "active"}, {"k": "keyword"}, lambda *_: ["Active", "ACTIVE"])
    assert split.residual is None
    assert "ACTIVE" in split.qdrant.model_dump_json()

    assert pushed({"k": "active"}, {"k": "keyword"}, lambda *_: None).qdrant is None
    assert pushed({"k": "active"}, {}, lambda *_: ["active"]).qdrant is None


def test_no_spelling_at_all_selects_nothing(memory):
    memory.upsert("docs", [models.PointStruct(id=1, vector=[1, 2], payload={"k": "x"})])
    split = pushed({"k": "none"}, {"k": "keyword"}, lambda *_: [])
    assert selected(memory, "docs", split) == set()


def test_an_empty_filter_sends_nothing():
    split = pushed({})
    assert split.qdrant is None
    assert split.residual is None
