"""The map of a run as a static picture, drawn without a browser."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from server.views.colors import LIGHT, NOISE_LIGHT
from server.views.map import MapData
from server.views.names import name_of
from server.views.page import PicturesNotInstalledError

SIZE_INCHES = (16, 10)
DPI = 120
N_NAMES = 60
MAX_NAME_CHARS = 34


def map_png(shown: MapData) -> bytes:
    """Draw the map: documents as points, the largest groups with their names.

    Raises
    ------
    PicturesNotInstalledError
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PicturesNotInstalledError.of("matplotlib") from error
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)  # No pyplot: it keeps state that threads would share.
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(
        f"{shown.cluster_name}: {shown.n_documents:,} documents in {shown.n_leaves:,} groups",
        loc="left",
        parse_math=False,
    )
    x, y = shown.places.T
    axes.scatter(x, y, s=_point_area(len(shown.places)), c=_colors(shown), linewidths=0)
    canvas.draw()  # Names are kept apart by their size on the drawn picture.
    _write_names(axes, shown)
    content = io.BytesIO()
    canvas.print_png(content)
    return content.getvalue()


def _colors(shown: MapData) -> list[str]:
    palette = np.array([*LIGHT, NOISE_LIGHT])
    of_group = np.append(shown.colors(), len(LIGHT))  # Noise, -1, picks the last one.
    colors: list[str] = palette[of_group[shown.group_of]].tolist()
    return colors


def _point_area(n_points: int) -> float:
    """Give the area of a point in square points of 1/72 inch: many are drawn small."""
    return float(np.clip(60_000 / max(1, n_points), 1.0, 40.0))


def _write_names(axes: Any, shown: MapData) -> None:
    """Write names, the largest groups first, none over another."""
    from matplotlib.patheffects import withStroke

    parents = {group.parent for group in shown.groups}
    leaves = [
        group
        for at, group in enumerate(shown.groups)
        if at not in parents and group.place is not None
    ]
    taken: list[Any] = []
    for group in sorted(leaves, key=lambda group: -group.member_count):
        if len(taken) == N_NAMES:
            return
        name = axes.text(
            *(group.place or ()),
            _cut(name_of(group.label, group.keywords)),
            ha="center",
            va="center",
            fontsize=9,
            fontweight="bold",
            path_effects=[withStroke(linewidth=3, foreground="white")],
            parse_math=False,  # A name may hold dollar signs.
        )
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(box)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_NAME_CHARS else text[: MAX_NAME_CHARS - 1] + "…"
