"""``python -m server.gateway`` prints the configuration for containers: docker/envoy.yaml."""

from __future__ import annotations

import sys

from server.gateway.config import IN_CONTAINERS

NOTICE = "# Made from server/gateway/envoy.yaml by `make proto`; change that one.\n"

if __name__ == "__main__":
    sys.stdout.write(NOTICE + IN_CONTAINERS.config())
