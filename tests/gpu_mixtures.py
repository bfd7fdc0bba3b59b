"""Points with known groups, for tests of clustering methods."""

import numpy as np


def mixture(n_points=600, n_dims=8, n_groups=6, spread=1.0, seed=0, apart=4.0):
    """Draw points around centres `apart` from the origin; gives points and their groups."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_groups, n_dims)) * apart
    which = rng.integers(n_groups, size=n_points)
    points = centres[which] + spread * rng.normal(size=(n_points, n_dims))
    return points.astype(np.float32), which
