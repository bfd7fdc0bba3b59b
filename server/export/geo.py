"""Shapes on the globe, in degrees; distances in metres on a sphere of 6 371 008.8 m."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EARTH_RADIUS_M = 6_371_008.8
MAX_RADIUS_M = math.pi * EARTH_RADIUS_M


@dataclass(frozen=True)
class GeoPoint:
    """A place: latitude in [-90, 90], longitude in [-180, 180]."""

    lat: float
    lon: float


@dataclass(frozen=True)
class GeoRadius:
    """Everything within `radius_m` metres of `center`, the rim included."""

    center: GeoPoint
    radius_m: float

    def holds(self, point: GeoPoint) -> bool:
        """Whether the great-circle distance to the centre is at most the radius."""
        lat_a, lat_b = math.radians(self.center.lat), math.radians(point.lat)
        d_lat, d_lon = lat_b - lat_a, math.radians(point.lon - self.center.lon)
        h = math.sin(d_lat / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(d_lon / 2) ** 2
        return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(1.0, h))) <= self.radius_m


@dataclass(frozen=True)
class GeoBoundingBox:
    """A box, edges included. It crosses the antimeridian when its left lies east of its right."""

    top_left: GeoPoint
    bottom_right: GeoPoint

    def holds(self, point: GeoPoint) -> bool:
        """Whether the point lies in the box."""
        if not self.bottom_right.lat <= point.lat <= self.top_left.lat:
            return False
        left, right = self.top_left.lon, self.bottom_right.lon
        if left > right:
            return point.lon >= left or point.lon <= right
        return left <= point.lon <= right


@dataclass(frozen=True)
class GeoPolygon:
    """A ring of places with holes, on the flat map of degrees; it never wraps around.

    Places on the outer ring or on the rim of a hole are inside.
    """

    exterior: tuple[GeoPoint, ...]
    interiors: tuple[tuple[GeoPoint, ...], ...] = ()

    def holds(self, point: GeoPoint) -> bool:
        """Whether the point lies within the ring and in none of the holes."""
        if not _in_ring(point, self.exterior):
            return False
        return not any(
            _in_ring(point, hole) and not _on_rim(point, hole) for hole in self.interiors
        )


def _edges(ring: Sequence[GeoPoint]) -> list[tuple[GeoPoint, GeoPoint]]:
    return list(zip(ring, [*ring[1:], ring[0]], strict=True))


def _on_rim(point: GeoPoint, ring: Sequence[GeoPoint]) -> bool:
    for a, b in _edges(ring):
        cross = (b.lon - a.lon) * (point.lat - a.lat) - (b.lat - a.lat) * (point.lon - a.lon)
        if (
            cross == 0
            and min(a.lon, b.lon) <= point.lon <= max(a.lon, b.lon)
            and min(a.lat, b.lat) <= point.lat <= max(a.lat, b.lat)
        ):
            return True
    return False


def _in_ring(point: GeoPoint, ring: Sequence[GeoPoint]) -> bool:
    if _on_rim(point, ring):
        return True
    inside = False
    for a, b in _edges(ring):
        if (a.lat > point.lat) != (b.lat > point.lat):
            crossing = a.lon + (point.lat - a.lat) / (b.lat - a.lat) * (b.lon - a.lon)
            inside ^= point.lon < crossing
    return inside


def payload_point(value: Any) -> GeoPoint | None:
    """The place that a payload value ``{"lat": ..., "lon": ...}`` names, or None."""
    if not isinstance(value, Mapping):
        return None
    lat, lon = _degrees(value.get("lat"), 90), _degrees(value.get("lon"), 180)
    return None if lat is None or lon is None else GeoPoint(lat, lon)


def _degrees(value: Any, limit: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -limit <= value <= limit else None
