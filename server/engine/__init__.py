"""Worker processes, and the functions that run in them: through Dask, here or on a cluster."""
