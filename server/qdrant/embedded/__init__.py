"""Qdrant's own gRPC services on top of Qdrant Edge, in a process of its own.

Layers, bottom up: `shards` (one collection's shard: open, idle, close), `storage`
(collections, aliases, the lock), `convert`/`filters` (protobuf to Edge and back),
`checks` (what is refused before Edge sees it), `points`/`services` (the gRPC services),
`process` (the child process and its address file).
"""

from server.qdrant.embedded.process import EmbeddedQdrant, attach_or_start, start_embedded

__all__ = ["EmbeddedQdrant", "attach_or_start", "start_embedded"]
