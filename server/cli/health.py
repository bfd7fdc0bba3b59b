"""`shoal health`: whether a server serves, for people and for containers."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2

from server.cli.connection import connect
from server.cli.console import print_json, say
from server.cli.faults import CallFailedError
from server.cli.options import JsonOption, ServerOption


def health(server: ServerOption = None, json_output: JsonOption = False) -> None:
    """Ask a server's standard health service; exit code 3 unless it serves."""
    with connect(server, None, None) as connection:
        answer = connection.call(connection.health.Check, health_pb2.HealthCheckRequest())
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        if status != "SERVING":
            raise CallFailedError(
                grpc.StatusCode.UNAVAILABLE, f"the server at {connection.target} says {status}"
            )
        if json_output:
            print_json({"status": status, "server": connection.target}, indent=None)
        else:
            say(f"{connection.target} is serving")
