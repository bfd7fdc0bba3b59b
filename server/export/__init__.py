"""From Qdrant collections to Parquet files: the filter language, the scroll, the writer."""
