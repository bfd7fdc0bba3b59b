"""Output collections: staged under the run's own name, shown by one switch of an alias.

Readers use an alias. Each attempt of a run fills a new generation beside the one that
readers see; the switch is one atomic request, and only then the old generation goes. Every
step may be repeated by anybody, and two attempts never write into one collection.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as pb

from server.jobs.ids import short_id
from server.jobs.model import OutputCollection
from server.qdrant.names import SEPARATOR
from server.results.documents import VECTOR_NAME, centroid_points, member_points, member_sizes
from server.results.failures import OutputLostError, OutputNameTakenError
from server.results.groups import Group
from server.results.renaming import LateNames, Names, rename_members
from server.results.writes import (
    N_IN_FLIGHT,
    WRITE_TIMEOUT_S,
    Progress,
    RetryPolicy,
    ShouldStop,
    never,
    repeat_passing,
    slices_by_bytes,
    write_all,
)

MAX_SLUG_LENGTH = 64
_ATTEMPT = re.compile(r"(run_[A-Za-z0-9]+)(?:-(\d+))?")

R = TypeVar("R")
Published = Literal["switched", "already", "superseded"]


def slug(text: str) -> str:
    """Make a name of lower-case ASCII letters, digits and single dashes from any text.

    Accents are dropped; what has no ASCII form is left out. Never empty.
    """
    ascii_text = unicodedata.normalize("NFKD", text.casefold()).encode("ascii", "ignore").decode()
    dashed = re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")
    return dashed[:MAX_SLUG_LENGTH].rstrip("-") or "cluster"


def plan_output(
    cluster_name: str,
    cluster_id: str,
    run_id: str,
    namespace_id: str,
    qdrant_name_template: str,
    feature: str | None = None,
    lease_number: int = 1,
) -> OutputCollection:
    """Name the output collection of a run's attempt.

    Parameters
    ----------
    qdrant_name_template : str
        How collection ids become Qdrant names: ``{collection_id}``, ``{namespace_id}``. Under
        one with a slash, which puts collections into a shared one, outputs are still Qdrant
        collections of their own: they are switched by alias, and their vectors are others.
    feature : str or None
        Appended where each feature has its own output.
    lease_number : int
        Of the attempt.

    Returns
    -------
    OutputCollection
        `collection_id` is what callers use, `name` its alias in Qdrant, `generation` the
        collection that this attempt fills.
    """
    name_part, id_part = slug(cluster_name), short_id(cluster_id)
    # A default name ends with the short id already.
    parts = [name_part] if name_part.endswith(f"-{id_part}") else [name_part, id_part]
    collection_id = "-".join(parts if feature is None else [*parts, slug(feature)])
    own_template = qdrant_name_template.replace(SEPARATOR, "__")
    name = own_template.format(namespace_id=namespace_id, collection_id=collection_id)
    generation = generation_of(name, run_id, lease_number)
    return OutputCollection(
        collection_id=collection_id, name=name, generation=generation, feature=feature
    )


def generation_of(name: str, run_id: str, lease_number: int) -> str:
    """Name the collection that one attempt of a run fills behind an alias."""
    return f"{name}.{run_id}" + (f"-{lease_number}" if lease_number > 1 else "")


def stage_members(
    client: QdrantClient,
    output: OutputCollection,
    members: pa.Table,
    *,
    distance: str,
    n_dims: int | None,
    vectors: NDArray[np.float32] | None = None,
    vector_rows: NDArray[np.int64] | None = None,
    names: Names = lambda: None,
    progress: Progress | None = None,
    should_stop: ShouldStop = never,
    n_in_flight: int = N_IN_FLIGHT,
    policy: RetryPolicy | None = None,
) -> LateNames:
    """Begin to fill a run's generation, with its members; readers see nothing of it yet.

    What an interrupted attempt of the same run left is dropped first. The groups need not be
    named yet; `stage_groups` goes on.

    Parameters
    ----------
    members : pa.Table
        Of `members_table`.
    distance : str
        Qdrant's name of the vectors' distance, for searches among the centroids.
    n_dims : int or None
        Size of the centroids; None where there are no vectors.
    vectors : array of shape (n_points, n_dims), float32, or None
        Given for ``members_with_vectors``.
    vector_rows : array of shape (n_members,), int64, or None
        The row of `vectors` of each member (`member_order`); None: the same order.
    names : callable
        Gives the groups as soon as their names are final, and None before.
    progress : callable, optional
        Called with documents written and members in all, from the calling thread.

    Raises
    ------
    OutputLostError
        If the generation is published already.
    WriteStoppedError
        If `should_stop` says so; the half-filled generation stays for `discard_outputs`.
    """
    policy = policy or RetryPolicy()
    name = output.generation
    # Told now, before the run is committed, rather than when it is to be published.
    _check_name_is_free(_collections(client), output)
    if _alias_target(client, output.name) == name:
        raise OutputLostError(f"{name} is published already; it cannot be filled again")
    discard_outputs(client, output)
    repeat_passing(
        lambda: _create_generation(client, name, distance, n_dims),
        collection=name,
        policy=policy,
        should_stop=should_stop,
    )
    late = LateNames(members, names, output.name)
    member_bytes = member_sizes(members, n_dims if vectors is not None else None)
    batches = (
        member_points(late.table_for(rows), rows, output.name, vectors, vector_rows)
        for rows in slices_by_bytes(member_bytes)
    )
    n_written = 0
    for n_points in upsert_all(
        client, name, batches, policy=policy, should_stop=should_stop, n_in_flight=n_in_flight
    ):
        n_written += n_points
        if progress is not None:
            progress(n_written, len(members))
    late.prepare()
    return late


def stage_groups(
    client: QdrantClient,
    output: OutputCollection,
    staged: LateNames,
    groups: Sequence[Group],
    *,
    should_stop: ShouldStop = never,
    n_in_flight: int = N_IN_FLIGHT,
    policy: RetryPolicy | None = None,
) -> int:
    """Fill the rest of a run's generation: the groups, and their names where members lack them.

    Parameters
    ----------
    staged : LateNames
        From `stage_members`.
    groups : sequence of Group
        Under their final names.

    Returns
    -------
    int
        Number of documents in the generation.

    Raises
    ------
    OutputLostError
        If the generation does not hold what was written.
    WriteStoppedError
        If `should_stop` says so.
    """
    policy = policy or RetryPolicy()
    name = output.generation
    rename_members(
        client, name, staged, groups,
        policy=policy, should_stop=should_stop, n_in_flight=n_in_flight,
    )  # fmt: skip
    sizes = [512 + (0 if group.centroid is None else group.centroid.nbytes) for group in groups]
    batches = (
        centroid_points(groups[rows], output.name)
        for rows in slices_by_bytes(np.array(sizes, dtype=np.int64))
    )
    for _ in upsert_all(
        client, name, batches, policy=policy, should_stop=should_stop, n_in_flight=n_in_flight
    ):
        pass
    n_total = len(groups) + len(staged.members)
    _check_count(client, name, n_total)
    return n_total


def upsert_all(
    client: QdrantClient,
    collection: str,
    batches: Iterable[Sequence[pb.PointStruct]],
    *,
    policy: RetryPolicy | None = None,
    should_stop: ShouldStop = never,
    n_in_flight: int = N_IN_FLIGHT,
) -> Iterator[int]:
    """Write batches of documents, several at once; give how many each had, in any order."""
    repeats = policy or RetryPolicy()

    def upsert(points: Sequence[pb.PointStruct]) -> int:
        # Waiting costs nothing with several in flight, and shows a refused batch.
        request = pb.UpsertPoints(collection_name=collection, points=points, wait=True)
        repeat_passing(
            lambda: client.grpc_points.Upsert(request, timeout=WRITE_TIMEOUT_S),
            collection=collection,
            policy=repeats,
            should_stop=should_stop,
        )
        return len(points)

    return write_all(batches, upsert, n_in_flight=n_in_flight, should_stop=should_stop)


def publish_outputs(
    client: QdrantClient,
    output: OutputCollection,
    *,
    in_work: Collection[str] = (),
    drain_s: float = 1.0,
) -> Published:
    """Let readers see a staged generation, then remove the ones before it.

    Parameters
    ----------
    in_work : collection of str
        Generations of other runs that are being filled now; untouched.
    drain_s : float
        Seconds that readers of the old generation get to finish their request.

    Returns
    -------
    {'switched', 'already', 'superseded'}
        The last when a newer run has been published and taken this generation away.

    Raises
    ------
    OutputNameTakenError
        If a real collection has the alias's name.
    OutputLostError
        If the generation is gone and nothing newer stands in its place.
    """
    existing = _collections(client)
    _check_name_is_free(existing, output)
    current = _alias_target(client, output.name)
    if output.generation not in existing:
        if current is not None:
            return "superseded"
        raise OutputLostError(f"{output.generation} is gone before it was published; run again")
    if current != output.generation:
        _switch(client, output, current)
        if current is not None and drain_s:
            time.sleep(drain_s)
    for generation in _generations(existing, output.name):
        if generation != output.generation and generation not in in_work:
            _delete(client, generation)
    return "already" if current == output.generation else "switched"


def discard_outputs(client: QdrantClient, output: OutputCollection) -> bool:
    """Remove what this attempt and those before it staged; whether there was anything.

    A published generation is left alone: the run was committed, and others may read it. So is
    that of a later attempt, which has taken the run over.
    """
    shown = _alias_target(client, output.name)
    run_id, newest = _attempt_of(output.generation, output.name)
    staged = []
    for generation in _generations(_collections(client), output.name):
        of_run, number = _attempt_of(generation, output.name)
        if generation != shown and of_run == run_id and number <= newest:
            staged.append(generation)
    for generation in staged:
        _delete(client, generation)
    return bool(staged)


def abandon_outputs(client: QdrantClient, output: OutputCollection) -> bool:
    """Remove what one attempt alone staged, unless readers see it; whether there was anything."""
    staged = output.generation in _collections(client)
    if not staged or _alias_target(client, output.name) == output.generation:
        return False
    _delete(client, output.generation)
    return True


def remove_outputs(client: QdrantClient, output: OutputCollection) -> int:
    """Remove the alias and all its generations; give how many there were."""
    if _alias_target(client, output.name) is not None:
        _ask(lambda: client.update_collection_aliases([_drop_alias(output)]), output.name)
    generations = _generations(_collections(client), output.name)
    for generation in generations:
        _delete(client, generation)
    return len(generations)


def _create_generation(client: QdrantClient, name: str, distance: str, n_dims: int | None) -> None:
    if name in _collections(client):
        client.delete_collection(name)
    # The vector is named: points may then lack it, as members do.
    vectors = (
        {VECTOR_NAME: models.VectorParams(size=n_dims, distance=models.Distance(distance))}
        if n_dims
        else {}
    )
    client.create_collection(name, vectors_config=vectors)
    for field, kind in (
        ("cluster_id", models.PayloadSchemaType.KEYWORD),
        ("is_centroid", models.PayloadSchemaType.BOOL),
    ):
        client.create_payload_index(name, field, field_schema=kind, wait=True)


def _check_name_is_free(existing: Collection[str], output: OutputCollection) -> None:
    if output.name in existing:
        raise OutputNameTakenError(
            f"Qdrant has a collection {output.name!r} that this cluster did not make, so its "
            "output cannot have that name; rename or delete that collection, or rename the "
            "cluster",
            collection=output.name,
        )


def _check_count(client: QdrantClient, name: str, expected: int) -> None:
    found = _ask(lambda: client.count(name, exact=True), name).count
    if found != expected:
        raise OutputLostError(
            f"{name} holds {found:,} documents after {expected:,} were written; "
            "somebody else writes to it, or Qdrant lost some: run again",
            collection=name,
        )


def _switch(client: QdrantClient, output: OutputCollection, current: str | None) -> None:
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=output.generation, alias_name=output.name)
    )
    # One request, and Qdrant applies its actions as one.
    actions: list[models.AliasOperations] = [] if current is None else [_drop_alias(output)]
    actions.append(create)
    _ask(lambda: client.update_collection_aliases(actions), output.generation)


def _drop_alias(output: OutputCollection) -> models.DeleteAliasOperation:
    return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=output.name))


def _alias_target(client: QdrantClient, alias: str) -> str | None:
    for entry in _ask(client.get_aliases, alias).aliases:
        if entry.alias_name == alias:
            return entry.collection_name
    return None


def _collections(client: QdrantClient) -> set[str]:
    return {entry.name for entry in _ask(client.get_collections, "").collections}


def _delete(client: QdrantClient, generation: str) -> None:
    _ask(lambda: client.delete_collection(generation), generation)


def _ask(call: Callable[[], R], collection: str) -> R:
    return repeat_passing(call, collection=collection, policy=RetryPolicy())


def _generations(existing: Collection[str], name: str) -> list[str]:
    prefix = f"{name}."
    return sorted(
        entry
        for entry in existing
        if entry.startswith(prefix) and _ATTEMPT.fullmatch(entry[len(prefix) :])
    )


def _attempt_of(generation: str, name: str) -> tuple[str, int]:
    """Read a generation's run and the number of its attempt's lease; "" for none of ours."""
    found = _ATTEMPT.fullmatch(generation.removeprefix(f"{name}."))
    return (found[1], int(found[2] or 1)) if found is not None else ("", 0)
