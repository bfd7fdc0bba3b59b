"""The command line: one file per group of commands; everything remote goes over gRPC."""
