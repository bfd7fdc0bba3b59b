"""The compute library of shoal: arrays in, groups out.

It knows no gRPC, no database and no network, and runs in a notebook::

    from gpu.clustering import fit
    from gpu.params import parse_params

    result = fit(
        vectors, method="kmeans", params=parse_params("kmeans", {"n_clusters": 3}).params,
        metric="cosine",
    )

Importing any module here loads no CUDA package and creates no CUDA context; `gpu.params` and
`gpu.errors` load no array library either.
"""
