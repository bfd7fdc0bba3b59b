"""The parameters of each clustering method as frozen dataclasses.

Names and defaults are scikit-learn's (EVoC's own for evoc), but for the number of groups, 8, and
the seed, 42, which always have a value. Distances among them are in the metric of the vectors.
Loads no array library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

APPROXIMATE_FROM = {"cpu": 80_000, "gpu": 500_000}
"""Points above which the tree is approximate unless `approx_min_span_tree` is false.

On the CPU where the exact tree of 384 dimensions takes some 30 s on two cores and the approximate
one 3 (`benchmarks/hdbscan_sizes.py`); on the GPU it was not measured.
"""


@dataclass(frozen=True)
class HdbscanParams:
    """Parameters of HDBSCAN.

    Attributes
    ----------
    min_cluster_size : int or float
        Fewest points of a group; below 1 it is a share of all points.
    min_samples : int or None
        Points (itself included) that make a neighbourhood dense; None: min_cluster_size.
    cluster_selection_epsilon : float
        Groups closer than this are not split, in the metric's unit.
    cluster_selection_method : {"eom", "leaf"}
        Most stable groups, or the smallest ones.
    allow_single_cluster : bool
        Whether one group holding everything is an answer.
    max_cluster_size : int or None
        Most points of a group; None: no limit.
    alpha : float
        Distance scaling in the tree.
    approx_min_span_tree : bool or None
        Whether near neighbours are searched approximately, which is many times faster and gives
        nearly the same groups; None: above `APPROXIMATE_FROM` points.
    """

    min_cluster_size: float = 5
    min_samples: int | None = None
    cluster_selection_epsilon: float = 0.0
    cluster_selection_method: Literal["eom", "leaf"] = "eom"
    allow_single_cluster: bool = False
    max_cluster_size: int | None = None
    alpha: float = 1.0
    approx_min_span_tree: bool | None = None

    def resolved(self, n_points: int) -> HdbscanParams:
        """Give a copy in which min_cluster_size and min_samples are counts of points."""
        count = count_of(self.min_cluster_size, n_points)
        samples = count if self.min_samples is None else self.min_samples
        return replace(self, min_cluster_size=count, min_samples=samples)

    def is_approximate(self, n_points: int, metric: str, device: str) -> bool:
        """Tell whether near neighbours are searched approximately; by Manhattan they never are."""
        if metric == "manhattan":
            return False
        wanted = self.approx_min_span_tree
        return n_points > APPROXIMATE_FROM[device] if wanted is None else wanted


@dataclass(frozen=True)
class KMeansParams:
    """Parameters of k-means.

    Attributes
    ----------
    n_clusters : int
        Number of groups.
    init : {"k-means++", "random"}
        How the first centroids are chosen.
    n_init : int or "auto"
        Starts, of which the best is kept; auto: 1 with k-means++, 10 with random.
    max_iter : int
        Most iterations of one start.
    tol : float
        A start ends when the centroids' summed squared shift falls to this share of the mean
        variance of the dimensions.
    random_state : int
        Seed.
    """

    n_clusters: int = 8
    init: Literal["k-means++", "random"] = "k-means++"
    n_init: int | Literal["auto"] = "auto"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: int = 42


@dataclass(frozen=True)
class DbscanParams:
    """Parameters of DBSCAN.

    Attributes
    ----------
    eps : float
        Points at most this far apart are neighbours, in the metric's unit.
    min_samples : int
        Neighbours (itself included) that make a point a core point.
    """

    eps: float = 0.5
    min_samples: int = 5


@dataclass(frozen=True)
class AgglomerativeParams:
    """Parameters of agglomerative clustering.

    Attributes
    ----------
    n_clusters : int or None
        Number of groups; None with `distance_threshold`.
    linkage : {"ward", "complete", "average", "single"}
        What is the distance of two groups.
    distance_threshold : float or None
        Groups at least this far apart are not merged, in the metric's unit.
    """

    n_clusters: int | None = 8
    linkage: Literal["ward", "complete", "average", "single"] = "ward"
    distance_threshold: float | None = None


@dataclass(frozen=True)
class SpectralParams:
    """Parameters of spectral clustering.

    Attributes
    ----------
    n_clusters : int
        Number of groups.
    n_components : int or None
        Eigenvectors used; None: n_clusters.
    affinity : {"rbf", "nearest_neighbors"}
        ``exp(-gamma * d**2)`` of every pair, or the graph of nearest neighbours.
    gamma : float
        Of "rbf".
    n_neighbors : int
        Of "nearest_neighbors", the point itself included.
    n_init : int
        Starts of the k-means that ends it.
    eigen_solver : {"arpack", "lobpcg"}
    eigen_tol : float or "auto"
        When the eigenvectors are good enough.
    assign_labels : {"kmeans", "discretize", "cluster_qr"}
        How eigenvectors become groups.
    random_state : int
        Seed.
    """

    n_clusters: int = 8
    n_components: int | None = None
    affinity: Literal["rbf", "nearest_neighbors"] = "rbf"
    gamma: float = 1.0
    n_neighbors: int = 10
    n_init: int = 10
    eigen_solver: Literal["arpack", "lobpcg"] = "arpack"
    eigen_tol: float | Literal["auto"] = "auto"
    assign_labels: Literal["kmeans", "discretize", "cluster_qr"] = "kmeans"
    random_state: int = 42


@dataclass(frozen=True)
class GaussianMixtureParams:
    """Parameters of a mixture of Gaussians.

    Attributes
    ----------
    n_components : int
        Number of Gaussians; also taken under the name n_clusters.
    covariance_type : {"full", "tied", "diag", "spherical"}
        Freedom of the Gaussians' shapes.
    tol : float
        A start ends when the mean log-likelihood gains less than this.
    reg_covar : float
        Added to the variances.
    max_iter, n_init : int
        Most iterations of a start; starts, of which the best is kept.
    init_params : {"kmeans", "k-means++", "random", "random_from_data"}
        How the first memberships are chosen.
    random_state : int
        Seed.
    """

    n_components: int = 8
    covariance_type: Literal["full", "tied", "diag", "spherical"] = "full"
    tol: float = 1e-3
    reg_covar: float = 1e-6
    max_iter: int = 100
    n_init: int = 1
    init_params: Literal["kmeans", "k-means++", "random", "random_from_data"] = "kmeans"
    random_state: int = 42


@dataclass(frozen=True)
class MeanShiftParams:
    """Parameters of mean shift.

    Attributes
    ----------
    bandwidth : float or None
        Radius of the window, in the metric's unit; None: estimated from the data.
    bin_seeding : bool
        Start from the cells of a grid instead of from every point.
    min_bin_freq : int
        Fewest points of a cell to start from.
    cluster_all : bool
        Whether points in no window join the nearest group.
    max_iter : int
        Most moves of a window.
    random_state : int
        Seed of the sample that the bandwidth is estimated from.
    """

    bandwidth: float | None = None
    bin_seeding: bool = False
    min_bin_freq: int = 1
    cluster_all: bool = True
    max_iter: int = 300
    random_state: int = 42


@dataclass(frozen=True)
class OpticsParams:
    """Parameters of OPTICS.

    Attributes
    ----------
    min_samples : int or float
        Points (itself included) that make a neighbourhood dense; below 1 a share of all points.
    max_eps : float or None
        Farthest neighbour looked at, in the metric's unit; None: no limit.
    cluster_method : {"xi", "dbscan"}
        Groups by steep slopes of the reachability, or by one cut through it.
    eps : float or None
        The cut of "dbscan", in the metric's unit; None: max_eps.
    xi : float
        Least relative steepness of a slope, below 1.
    predecessor_correction : bool
        Correct groups by the predecessors in the order.
    min_cluster_size : int, float or None
        Fewest points of a group, below 1 a share; None: min_samples.
    """

    min_samples: float = 5
    max_eps: float | None = None
    cluster_method: Literal["xi", "dbscan"] = "xi"
    eps: float | None = None
    xi: float = 0.05
    predecessor_correction: bool = True
    min_cluster_size: float | None = None

    def resolved(self, n_points: int) -> OpticsParams:
        """Give a copy in which min_samples and min_cluster_size are counts of points."""
        samples = count_of(self.min_samples, n_points)
        size = self.min_cluster_size
        count = samples if size is None else count_of(size, n_points)
        return replace(self, min_samples=samples, min_cluster_size=count)


@dataclass(frozen=True)
class EvocParams:
    """Parameters of EVoC, by its own names.

    Attributes
    ----------
    noise_level : float
        0 groups more of the points, 1 only the sure ones.
    base_min_cluster_size : int
        Fewest points of a group in the finest layer.
    base_n_clusters, approx_n_clusters : int or None
        Groups wanted in the finest layer; in the only layer.
    n_neighbors : int
        Of the graph.
    min_samples : int
        Points that make a neighbourhood of the embedding dense.
    n_epochs : int
        Rounds of the embedding.
    node_embedding_init : {"label_prop"} or None
    symmetrize_graph : bool
    node_embedding_dim : int or None
        Dimensions of the embedding; None: a quarter of n_neighbors, 4 to 15.
    neighbor_scale : float
        Multiplies the neighbours' effective number.
    min_similarity_threshold : float
        Layers more alike than this count as one.
    max_layers : int
    random_state : int
        Seed.
    """

    noise_level: float = 0.5
    base_min_cluster_size: int = 5
    base_n_clusters: int | None = None
    approx_n_clusters: int | None = None
    n_neighbors: int = 15
    min_samples: int = 5
    n_epochs: int = 50
    node_embedding_init: Literal["label_prop"] | None = "label_prop"
    symmetrize_graph: bool = True
    node_embedding_dim: int | None = None
    neighbor_scale: float = 1.0
    min_similarity_threshold: float = 0.2
    max_layers: int = 10
    random_state: int = 42


@dataclass(frozen=True)
class AutoParams:
    """Parameters of auto, which chooses everything else.

    Attributes
    ----------
    random_state : int
        Seed.
    """

    random_state: int = 42


Params = (
    HdbscanParams
    | KMeansParams
    | DbscanParams
    | AgglomerativeParams
    | SpectralParams
    | GaussianMixtureParams
    | MeanShiftParams
    | OpticsParams
    | EvocParams
    | AutoParams
)


def count_of(size: float, n_points: int) -> int:
    """Turn a share of the points (below 1) into a count of at least 2; a count stays."""
    return max(2, math.ceil(size * n_points)) if size < 1 else int(size)
