"""Colours: told apart by any colour vision, and spread over the map."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from server.views.colors import DARK, LIGHT, color_groups

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
VISION = {
    "usual": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
JUST_TOLD_APART = 2.3
PAGES = {"light": (LIGHT, "#ffffff"), "dark": (DARK, "#121214")}


def linear(color: str) -> np.ndarray:
    share = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    ratio = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    bright, dim = sorted(
        (float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (one, other)), reverse=True
    )
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", PAGES)
@pytest.mark.parametrize("vision", VISION)
def test_any_colour_vision_tells_the_colours_apart(scheme: str, vision: str):
    colors, _ = PAGES[scheme]
    seen = [lab(VISION[vision] @ linear(color)) for color in colors]

    nearest = min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2))

    assert nearest > 4 * JUST_TOLD_APART


@pytest.mark.parametrize("scheme", PAGES)
def test_every_colour_stands_out_from_its_page(scheme: str):
    colors, page = PAGES[scheme]

    assert min(contrast(color, page) for color in colors) >= 3


def test_the_first_groups_have_colours_of_their_own_and_neighbours_differ():
    places = np.random.default_rng(1).normal(size=(200, 2))

    given = color_groups(places)

    assert len(set(given[: len(LIGHT)].tolist())) == len(LIGHT)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    assert (given[nearest] == given).mean() < 0.02


def test_groups_without_a_place_have_a_colour_too():
    assert color_groups(np.full((3, 2), np.nan)).tolist() == [0, 1, 2]
    assert color_groups(np.empty((0, 2))).tolist() == []
