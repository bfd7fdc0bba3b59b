"""Preprocessing steps: what is read, what is refused, and that every fault is told."""

import subprocess
import sys

import pytest

from gpu.errors import InvalidParametersError
from gpu.steps import Normalize, Pca, Umap, Whitening, parse_steps


def faults(raw):
    with pytest.raises(InvalidParametersError) as caught:
        parse_steps(raw)
    return {violation.path: violation.allowed for violation in caught.value.violations}


def test_steps_keep_their_order_and_take_defaults():
    steps = parse_steps(
        [
            {"method": "pca", "n_components": 20.0},
            {"method": "normalize"},
            {"method": "whitening", "epsilon": None},
            {"method": "umap", "metric": "cosine", "min_dist": 0.1},
        ]
    )

    assert steps == (Pca(20), Normalize(), Whitening(), Umap(metric="cosine", min_dist=0.1))
    assert isinstance(steps[0].n_components, int)


def test_pca_takes_a_share_of_the_variance():
    assert parse_steps([{"method": "pca", "n_components": 0.95}]) == (Pca(0.95),)


def test_every_fault_of_every_step_is_told():
    told = faults(
        [
            {"method": "pca", "n_components": 2.5, "whiten": 1},
            {"method": "umap", "n_neighbors": 1, "n_neighbours": 5, "random_state": -1},
            {"method": "normalize", "norm": "l2"},
            {"method": "normalise"},
            {"n_components": 3},
        ]
    )

    assert list(told) == [
        "[0].n_components",
        "[0].whiten",
        "[1].n_neighbors",
        "[1].n_neighbours",
        "[1].random_state",
        "[2].norm",
        "[3].method",
        "[4].method",
    ]
    assert "did you mean n_neighbors?" in told["[1].n_neighbours"]
    assert "did you mean normalize?" in told["[3].method"]


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"method": "whitening", "epsilon": 0}, "[0].epsilon"),
        ({"method": "whitening", "epsilon": float("nan")}, "[0].epsilon"),
        ({"method": "pca", "n_components": 0}, "[0].n_components"),
        ({"method": "pca", "n_components": True}, "[0].n_components"),
        ({"method": "pca", "n_components": "5"}, "[0].n_components"),
        ({"method": "umap", "metric": "hamming"}, "[0].metric"),
        ({"method": "umap", "min_dist": 1.5}, "[0].min_dist"),
        ({"method": ["pca"]}, "[0].method"),
        ("pca", "[0]"),
    ],
)
def test_bad_values_are_refused_by_path(step, path):
    assert list(faults([step])) == [path]


def test_endless_lists_are_refused():
    assert faults([{"method": "normalize"}] * 17)


def test_no_array_library_is_loaded():
    check = "import sys, gpu.steps; sys.exit('numpy' in sys.modules or 'pyarrow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
