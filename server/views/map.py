"""The map of a run as a page: every document a point, every group with its name at its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from server.views.colors import color_groups
from server.views.documents import Columns, Document
from server.views.names import name_of
from server.views.page import packed, render_page

NO_GROUP = -1


@dataclass(frozen=True)
class MapGroup:
    """One group on the map.

    Attributes
    ----------
    parent : int or None
        Position of the group above it.
    place : (float, float) or None
        Where its name stands; None where no member is on the map.
    nearest : sequence of Document
        Its members nearest to its centroid.
    """

    cluster_id: str
    label: str
    member_count: int
    summary: str | None = None
    keywords: tuple[str, ...] = ()
    parent: int | None = None
    place: tuple[float, float] | None = None
    nearest: Sequence[Document] = ()


@dataclass(frozen=True)
class MapData:
    """What a map shows.

    Attributes
    ----------
    groups : sequence of MapGroup
        The most important first.
    places : array of shape (n_points, 2), float32
    group_of : array of shape (n_points,), int32
        Position of each point's own group, `NO_GROUP` for noise.
    documents : sequence of Document
        Each point's document.
    n_documents : int
        Documents of the run; there are more than points where the map was thinned.
    columns : Columns
        What the documents' values are called.
    """

    cluster_name: str
    run_id: str
    groups: Sequence[MapGroup]
    places: NDArray[np.float32]
    group_of: NDArray[np.int32]
    documents: Sequence[Document]
    n_documents: int
    columns: Columns = field(default_factory=Columns)

    def colors(self) -> NDArray[np.int64]:
        """Give each group its number in the palette."""
        nowhere = (np.nan, np.nan)
        places = np.array([group.place or nowhere for group in self.groups], dtype=np.float64)
        return color_groups(places.reshape(-1, 2))

    @property
    def n_leaves(self) -> int:
        """Groups without groups inside."""
        return len(self.groups) - len({group.parent for group in self.groups} - {None})


def map_page(shown: MapData) -> str:
    """Write the map as one HTML file that needs nothing else."""
    return render_page(
        "map.html",
        ["theme.js", "map.js"],
        _data_of(shown),
        title=f"Map of {shown.cluster_name}",
        cluster_name=shown.cluster_name,
        run_id=shown.run_id,
        n_documents=shown.n_documents,
        n_points=len(shown.places),
        n_groups=shown.n_leaves,
        n_noise_points=int((shown.group_of == NO_GROUP).sum()),
    )


def _data_of(shown: MapData) -> dict[str, object]:
    places = shown.places.astype("<f4")
    n_fields = len(shown.columns.fields)
    return {
        "groups": [
            {
                "id": group.cluster_id,
                "label": group.label,
                "name": name_of(group.label, group.keywords),
                "size": group.member_count,
                "summary": group.summary or "",
                "keywords": list(group.keywords),
                "parent": group.parent,
                "place": group.place,
                "color": int(color),
                "nearest": [[each.title, each.document_id, *each.values] for each in group.nearest],
            }
            for group, color in zip(shown.groups, shown.colors(), strict=True)
        ],
        "x": packed(places[:, 0]),
        "y": packed(places[:, 1]),
        "groupOf": packed(shown.group_of.astype("<i4")),
        "titles": [document.title for document in shown.documents],
        "ids": [document.document_id for document in shown.documents],
        "fields": list(shown.columns.fields),
        "values": [[each.values[at] for each in shown.documents] for at in range(n_fields)],
    }
