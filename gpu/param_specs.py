"""Which parameters each method takes and in what range, as data; and which metrics it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpu.method_params import (
    AgglomerativeParams,
    AutoParams,
    DbscanParams,
    EvocParams,
    GaussianMixtureParams,
    HdbscanParams,
    KMeansParams,
    MeanShiftParams,
    OpticsParams,
    Params,
    SpectralParams,
)
from gpu.param_values import (
    Spec,
    below,
    between,
    boolean,
    either,
    fraction,
    one_of,
    real,
    seed,
    whole,
)

_ANGULAR_AND_EUCLIDEAN = ("cosine", "euclidean", "dot")
_ALL = (*_ANGULAR_AND_EUCLIDEAN, "manhattan")


@dataclass(frozen=True)
class Method:
    """A method as a request sees it.

    Attributes
    ----------
    make : type
        Its dataclass of parameters.
    specs : mapping of str to Spec
        What it takes.
    metrics : tuple of str
        Distances it can cluster by; cosine and dot go through unit rows.
    no_effect : mapping of str to str
        The library's names that change nothing here, with the reason told to the caller.
    aliases : mapping of str to str
        Other names of a parameter.
    """

    make: type[Params]
    specs: Mapping[str, Spec]
    metrics: tuple[str, ...] = _ANGULAR_AND_EUCLIDEAN
    no_effect: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)


_FROM_COLLECTION = "the metric is the collection's own distance"
_CHOSEN_HERE = "shoal chooses the fastest exact way itself"
_NOT_SHARED = "each run starts afresh"
_PROGRESS = "progress is in the run's events"
_ALL_CORES = "threads are the server's setting"
_NO_ARRAYS = "arrays of starting values are not taken from a request"

_NEIGHBOUR_SEARCH = {
    "metric": _FROM_COLLECTION,
    "metric_params": _FROM_COLLECTION,
    "p": _FROM_COLLECTION,
    "algorithm": _CHOSEN_HERE,
    "leaf_size": _CHOSEN_HERE,
    "n_jobs": _ALL_CORES,
}

METHOD_SPECS: dict[str, Method] = {
    "hdbscan": Method(
        make=HdbscanParams,
        specs={
            "min_cluster_size": either(whole(2), fraction()),
            "min_samples": whole(1),
            "cluster_selection_epsilon": real(0),
            "cluster_selection_method": one_of("eom", "leaf"),
            "allow_single_cluster": boolean(),
            "max_cluster_size": whole(2),
            "alpha": real(0, above=True),
            "approx_min_span_tree": boolean(),
        },
        metrics=_ALL,
        no_effect={
            **_NEIGHBOUR_SEARCH,
            "store_centers": "effective_feature_method chooses the centroid",
            "copy": "the input is never changed",
        },
    ),
    "kmeans": Method(
        make=KMeansParams,
        specs={
            "n_clusters": whole(1),
            "init": one_of("k-means++", "random"),
            "n_init": either(whole(1), one_of("auto")),
            "max_iter": whole(1),
            "tol": real(0),
            "random_state": seed(),
        },
        no_effect={
            "metric": _FROM_COLLECTION,
            "algorithm": _CHOSEN_HERE,
            "verbose": _PROGRESS,
            "copy_x": "the input is never changed",
        },
    ),
    "dbscan": Method(
        make=DbscanParams,
        specs={"eps": real(0, above=True), "min_samples": whole(1)},
        metrics=_ALL,
        no_effect=_NEIGHBOUR_SEARCH,
    ),
    "agglomerative": Method(
        make=AgglomerativeParams,
        specs={
            "n_clusters": whole(1),
            "linkage": one_of("ward", "complete", "average", "single"),
            "distance_threshold": real(0),
        },
        metrics=_ALL,
        no_effect={
            "metric": _FROM_COLLECTION,
            "memory": _NOT_SHARED,
            "connectivity": _NO_ARRAYS,
            "compute_full_tree": _CHOSEN_HERE,
            "compute_distances": "the heights of the tree are not kept",
        },
    ),
    "spectral": Method(
        make=SpectralParams,
        specs={
            "n_clusters": whole(1),
            "n_components": whole(1),
            "affinity": one_of("rbf", "nearest_neighbors"),
            "gamma": real(0, above=True),
            "n_neighbors": whole(1),
            "n_init": whole(1),
            "eigen_solver": one_of("arpack", "lobpcg"),
            "eigen_tol": either(real(0), one_of("auto")),
            "assign_labels": one_of("kmeans", "discretize", "cluster_qr"),
            "random_state": seed(),
        },
        no_effect={
            "degree": "it belongs to affinities that are not offered",
            "coef0": "it belongs to affinities that are not offered",
            "kernel_params": "it belongs to affinities that are not offered",
            "n_jobs": _ALL_CORES,
            "verbose": _PROGRESS,
        },
    ),
    "gaussian_mixture": Method(
        make=GaussianMixtureParams,
        specs={
            "n_components": whole(1),
            "covariance_type": one_of("full", "tied", "diag", "spherical"),
            "tol": real(0),
            "reg_covar": real(0),
            "max_iter": whole(1),
            "n_init": whole(1),
            "init_params": one_of("kmeans", "k-means++", "random", "random_from_data"),
            "random_state": seed(),
        },
        no_effect={
            "weights_init": _NO_ARRAYS,
            "means_init": _NO_ARRAYS,
            "precisions_init": _NO_ARRAYS,
            "warm_start": _NOT_SHARED,
            "verbose": _PROGRESS,
            "verbose_interval": _PROGRESS,
        },
        aliases={"n_clusters": "n_components"},
    ),
    "mean_shift": Method(
        make=MeanShiftParams,
        specs={
            "bandwidth": real(0, above=True),
            "bin_seeding": boolean(),
            "min_bin_freq": whole(1),
            "cluster_all": boolean(),
            "max_iter": whole(1),
            "random_state": seed(),
        },
        no_effect={"seeds": _NO_ARRAYS, "n_jobs": _ALL_CORES},
    ),
    "optics": Method(
        make=OpticsParams,
        specs={
            "min_samples": either(whole(2), fraction()),
            "max_eps": real(0, above=True),
            "cluster_method": one_of("xi", "dbscan"),
            "eps": real(0, above=True),
            "xi": below(0, 1),
            "predecessor_correction": boolean(),
            "min_cluster_size": either(whole(2), fraction()),
        },
        metrics=_ALL,
        no_effect={**_NEIGHBOUR_SEARCH, "memory": _NOT_SHARED},
    ),
    "evoc": Method(
        make=EvocParams,
        specs={
            "noise_level": between(0, 1),
            "base_min_cluster_size": whole(2),
            "base_n_clusters": whole(2),
            "approx_n_clusters": whole(2),
            "n_neighbors": whole(2),
            "min_samples": whole(1),
            "n_epochs": whole(1),
            "node_embedding_init": one_of("label_prop"),
            "symmetrize_graph": boolean(),
            "node_embedding_dim": whole(1),
            "neighbor_scale": real(0, above=True),
            "min_similarity_threshold": between(0, 1),
            "max_layers": whole(1),
            "random_state": seed(),
        },
        metrics=("cosine", "dot"),
        aliases={"n_clusters": "approx_n_clusters"},
    ),
    "auto": Method(make=AutoParams, specs={"random_state": seed()}),
}
