"""Talking to Qdrant: addresses and clients, schemas, the embedded server, the importer."""
