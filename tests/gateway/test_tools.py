"""With other people's tools: `make test-gateway` builds them, and runs this.

Each says why it is skipped where its tool is missing; where CI has Go, none may be.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from shoal_command import ROOT, Served, serving

from tests.docker.test_containers import KUBERNETES
from tests.gateway.documents import TOOLS, calling, example, run
from tests.gateway.models import Cluster
from tests.gateway.rest import CONTRACT, Rest

pytestmark = [pytest.mark.tools, pytest.mark.timeout(600)]
MUST_HAVE = bool(os.environ.get("CI")) and shutil.which("go") is not None
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance,negative_data_rejection"
)


def need(tool: str) -> None:
    """Skip without a tool that `make go-tools` builds."""
    if not (TOOLS / tool).exists():
        assert not MUST_HAVE, f"CI has Go, but {tool} was not built"
        pytest.skip(f"{tool} is not in .tools/bin: `make go-tools` builds it with Go")


@pytest.fixture(scope="session")
def dev_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server as the README's reader has it."""
    with serving(tmp_path_factory.mktemp("dev"), "--dev") as server:
        yield server


def test_grpcurl_of_the_readme(dev_server: Served) -> None:
    need("grpcurl")
    lines = re.findall(r"^grpcurl .*$", (ROOT / "README.md").read_text(), re.M)
    printed = [
        run(
            ["bash", "-ec", line.replace("127.0.0.1:50051", dev_server.address)],
            calling(dev_server, {"Authorization": "Bearer any", "X-Namespace": "default"}),
        )
        for line in lines
    ]

    assert len(lines) >= 3
    assert "clusters.v1.ClusterService" in printed[0]
    assert "// Required: the collections to cluster together." in printed[1]
    assert '"pagination"' in printed[2]


def test_grpcurl_of_the_clients_page(
    served: Served, headers: dict[str, str], done: Cluster
) -> None:
    need("grpcurl")
    printed = run(["bash", "-ec", example("bash grpcurl")], calling(served, headers))

    assert "grpc.health.v1.Health" in printed
    assert "Stores a definition and queues its first run at once." in printed
    assert "/v1/clusters" in printed  # The REST path stands with the call.
    assert f'"clusterId": "{done.cluster_id}"' in printed
    assert '"status": "SERVING"' in printed


def test_go(served: Served, headers: dict[str, str], done: Cluster, tmp_path: Path) -> None:
    need("protoc-gen-go")
    need("protoc-gen-go-grpc")
    env = calling(served, headers, GOFLAGS="-mod=mod")
    for name in ("buf.gen.yaml", "main.go"):
        (tmp_path / name).write_text(example(f"{name.rpartition('.')[2]} {name}"))
    buf = str(Path(sys.executable).with_name("buf"))
    image = str(CONTRACT / "descriptor_set.binpb")
    run([buf, "generate", image, "--path", "clusters/v1"], env, tmp_path)
    for words in (["mod", "init", "example.com/job"], ["mod", "tidy"], ["build", "-o", "job", "."]):
        run(["go", *words], env, tmp_path)

    printed = run([str(tmp_path / "job")], env)

    assert "completed write" in printed
    assert printed.count(" 50\n") == 4


@pytest.mark.parametrize("folder", ["base", "gpu"])
def test_kustomize_builds_what_kubernetes_takes(folder: str) -> None:
    need("kustomize")
    built = run([str(TOOLS / "kustomize"), "build", str(ROOT / "docker/kubernetes" / folder)], {})
    objects = list(yaml.safe_load_all(built))

    for one in objects:
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
    images = {
        container["image"]
        for one in objects
        if one["kind"] == "Deployment"
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    assert images == {"shoal:cpu" if folder == "base" else "shoal:gpu", "shoal-gateway:envoy"}


@pytest.mark.parametrize("knows", ["nothing", "a finished run"])
def test_schemathesis_finds_no_fault(
    rest: Rest, headers: dict[str, str], done: Cluster, knows: str, tmp_path: Path
) -> None:
    """Once with any ids, and once with those of a finished run; the latter leaves it there."""
    config = tmp_path / "schemathesis.toml"
    ids = {"cluster_id": done.cluster_id, "run_id": done.last_run_id, "group_id": "cl_0"}
    lines = [f'"path.{name}" = "{value}"' for name, value in ids.items()]
    config.write_text("\n".join(["[parameters]", *lines] if knows == "a finished run" else []))
    # A first map compiles its method for a minute.
    left_out = ["GetVisualization"] + (["DeleteCluster"] if knows == "a finished run" else [])
    keeps = [part for name in left_out for part in ("--exclude-operation-id", name)]
    sent = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config)]
    options = ["--phases", "coverage,fuzzing", "-n", "5", "--seed", "7", "--checks", CHECKS]

    printed = run(
        [*command, "run", f"http://{rest.address}/openapi.json", *options, *sent, *keeps],
        dict(os.environ),
        tmp_path,
    )

    assert "No issues found" in printed or "passed" in printed, printed
