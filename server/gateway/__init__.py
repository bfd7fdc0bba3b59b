"""REST for shoal: Envoy in front of the gRPC server, and nothing else between them."""
