"""shoal: a clustering service for Qdrant collections. See README.md for the way a job takes."""
