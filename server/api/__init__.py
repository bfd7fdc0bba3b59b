"""gRPC in and out: translate a call, delegate it, translate the answer. No rules live here."""
