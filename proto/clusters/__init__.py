"""Generated code of the contract; see the protos in `v1`."""
