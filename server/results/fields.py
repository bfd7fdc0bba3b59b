"""What enrichment writes into one document: the values of its group, or of its groups.

A document in one group has plain values. Where each feature has groups of its own, a field is an
object with a value for each feature, under the short name that the groups' ids begin with:
``{"text": "text.cl_0", "image": "image.cl_3"}``. By attributes a document has a group for each
value of a list; then a field is a list with a value for each group, in the groups' order, and
`keywords` has those of all of them. A place on the map is the document's own, whatever its groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from server.jobs.definition import FieldMapping
from server.results.groups import AXES, NOISE_LABEL, Group

KEYS: Final = ["source_collection_id", "source_document_id"]
_OF_A_MEMBERSHIP: Final = ("distance_to_centroid", "confidence")


def one_row_each(members: pa.Table) -> pa.Table:
    """Give one row for each document; lists in it where documents have several memberships."""
    if members.group_by(KEYS).aggregate([]).num_rows == len(members):
        return members
    names = [name for name in members.column_names if name not in KEYS]
    # In one thread a list has the order of the table.
    gathered = members.group_by(KEYS, use_threads=False).aggregate([(n, "list") for n in names])
    return gathered.select([*KEYS, *(f"{n}_list" for n in names)]).rename_columns([*KEYS, *names])


class Fields:
    """Makes payloads of rows that `one_row_each` gave.

    Attributes
    ----------
    columns : list of str
        Those of the members table that documents of one group differ in, as far as they are asked
        for.
    """

    def __init__(self, groups: Sequence[Group], mappings: Sequence[FieldMapping]) -> None:
        self._groups = {group.cluster_id: group for group in groups}
        self._mappings = mappings
        asked = {mapping.source_field for mapping in mappings}
        self.columns = [name for name in (*_OF_A_MEMBERSHIP, *AXES) if name in asked]

    @property
    def numeric(self) -> list[tuple[str, str]]:
        """Name the columns that differ from document to document, each with its target field."""
        return [(m.source_field, m.target_field) for m in self._own(True)]

    def shared(self, cluster_id: str) -> dict[str, Any]:
        """Give the fields that all documents get that are in one group, and in no other."""
        values = self._values({"cluster_id": cluster_id})
        return {m.target_field: values[m.source_field] for m in self._own(False)}

    def _own(self, is_own: bool) -> list[FieldMapping]:
        return [m for m in self._mappings if (m.source_field in self.columns) is is_own]

    def grouped(
        self, rows: pa.Table, points: Sequence[int | str]
    ) -> list[tuple[list[int | str], dict[str, Any]]]:
        """Give each payload with the documents that get it: those with equal values share one.

        Parameters
        ----------
        points : sequence of length n_rows
            The rows' ids in Qdrant.
        """
        names = ["cluster_id", *self.columns]
        values = [[_hashable(value) for value in rows[name].to_pylist()] for name in names]
        found: dict[tuple[Any, ...], list[int | str]] = {}
        for point, key in zip(points, zip(*values, strict=True), strict=True):
            found.setdefault(key, []).append(point)
        return [
            (ids, self._payload(dict(zip(names, key, strict=True)))) for key, ids in found.items()
        ]

    def _payload(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Give a document's fields; Qdrant removes one that is set to null."""
        several = row["cluster_id"]
        if isinstance(several, str):
            values = self._values(row)
        else:
            memberships = [
                self._values({name: row[name][at] for name in row}) for at in range(len(several))
            ]
            values = _together(several, memberships)
        return {mapping.target_field: values[mapping.source_field] for mapping in self._mappings}

    def _values(self, membership: Mapping[str, Any]) -> dict[str, Any]:
        """Give all values of one membership, by source field."""
        group = self._groups.get(membership["cluster_id"])
        return {
            **membership,
            "cluster_label": NOISE_LABEL if group is None else group.label,
            "member_count": None if group is None else group.member_count,
            "keywords": None if group is None else list(group.keywords),
        }


def _together(ids: Sequence[str], memberships: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Lay the values of several memberships into one value for each source field."""
    features = [cluster_id.rpartition(".")[0] for cluster_id in ids]
    if not all(features) and len(ids) == 1:
        return memberships[0]
    together = {name: [each[name] for each in memberships] for name in memberships[0]}
    return {name: _one_value(name, values, features) for name, values in together.items()}


def _one_value(name: str, values: Sequence[Any], features: Sequence[str]) -> Any:
    if name in AXES:
        return values[0]
    if all(value is None for value in values):
        return None
    if all(features):
        known = zip(features, values, strict=True)
        return {feature: value for feature, value in known if value is not None}
    if name == "keywords":
        return list(dict.fromkeys(word for words in values for word in words or ()))
    return list(values)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
