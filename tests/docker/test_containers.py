"""Images, compose file and Kubernetes manifests, as far as they can be tried without an engine."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from shoal_command import ROOT, environment

from server.config import Settings

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SETTINGS = {f"SHOAL_{name.upper()}" for name in Settings.model_fields}
BASE, GPU = DOCKER / "kubernetes/base", DOCKER / "kubernetes/gpu"
KUBERNETES = "1.33"


def manifests(folder: Path) -> list[dict[str, Any]]:
    """Give the objects that a kustomization lists in its own folder."""
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    files = [folder / name for name in listed if name.endswith(".yaml")]
    return [part for file in files for part in yaml.safe_load_all(file.read_text())]


OBJECTS = [*manifests(BASE), *manifests(GPU)]
DEPLOYMENTS = [one for one in OBJECTS if one["kind"] == "Deployment"]


def instruction(name: str) -> list[str]:
    """Give the words of the Dockerfile's last such instruction in the runtime stage."""
    stage = DOCKERFILE[DOCKERFILE.index("AS runtime") : DOCKERFILE.index("AS gateway")]
    words: list[str] = json.loads(re.findall(rf"^.*\b{name} (\[.*\])$", stage, re.M)[-1])
    return words


def command(words: list[str]) -> list[str]:
    """Find the command as the image's PATH does."""
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


def test_images_are_pinned() -> None:
    built = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.M)
    stages = {stage for _, stage in built}
    used = [image for image, _ in built if image not in stages]
    used += [one["image"] for name, one in COMPOSE["services"].items() if "build" not in one]

    assert {"cpu", "gpu", "gateway"} <= stages
    assert built[-1][1] == "cpu"  # What is built where no target is named.
    for image in used:
        assert re.search(r":\S*\d+\.\d+\.\d+", image), image


def test_what_is_copied_is_there_and_sent_to_the_engine() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M)
        for source in shlex.split(line)[:-1]
    ]

    assert "requirements-gpu.txt" in sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not any(source.startswith(name) for name in ignored), source
    assert {".venv", ".git", "docker/.env"} <= set(ignored)  # Nor secrets, nor what is built.


def test_the_image_serves_and_knows_its_health(tmp_path: Path) -> None:
    given = environment(SHOAL_DATA_DIR=str(tmp_path), SHOAL_LISTEN="127.0.0.1:0", SHOAL_DEV="true")
    words = command([*instruction("ENTRYPOINT"), *instruction("CMD"), "--json"])
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=log, text=True, env=given)
    assert server.stdout is not None
    try:
        address = json.loads(server.stdout.readline())["address"]
        probe = command(instruction("HEALTHCHECK .*CMD"))
        well = subprocess.run(
            probe, env=environment(SHOAL_SERVER=address), capture_output=True, text=True, timeout=60
        )
        server.send_signal(signal.SIGTERM)
        code = server.wait(60)
        away = subprocess.run(
            probe, env=environment(SHOAL_SERVER=address), capture_output=True, text=True, timeout=60
        )
    finally:
        server.kill()
        server.stdout.close()

    assert (well.returncode, well.stdout) == (0, f"{address} is serving\n")
    assert code == 0
    assert away.returncode == 3
    assert "no shoal server answers" in away.stderr


def test_the_compose_file_names_what_there_is() -> None:
    services = COMPOSE["services"]
    targets = set(re.findall(r" AS (\S+)$", DOCKERFILE, re.M))
    told = (DOCKER / ".env.example").read_text()
    asked = set(re.findall(r"\$\{(\w+)", (DOCKER / "compose.yaml").read_text()))

    assert services["shoal"]["profiles"] == ["cpu"]
    assert services["shoal-gpu"]["profiles"] == ["gpu"]
    for one in services.values():
        assert one.get("build", {"target": "cpu"})["target"] in targets
        assert set(one.get("depends_on", {})) <= set(services)
        assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))
    for name in ("shoal", "shoal-gpu"):
        assert set(services[name]["environment"]) <= SETTINGS
    assert asked == set(re.findall(r"^(\w+)=$", told, re.M))


@pytest.mark.parametrize("manifest", OBJECTS, ids=lambda one: f"{one['kind']}-{one['metadata']}")
def test_manifests_hold_to_the_schemas_of_kubernetes(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda one: one["metadata"]["name"])
def test_pods_are_probed_bounded_and_without_rights(deployment: dict[str, Any]) -> None:
    pod = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]} if "volumes" in pod else set()

    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in pod["containers"]:
        ports = {port.get("name") for port in container["ports"]}
        numbers = {port["containerPort"] for port in container["ports"]}
        probes = [container[name] for name in container if name.endswith("Probe")]
        assert "livenessProbe" in container
        for probe in probes:
            for kind in {"grpc", "httpGet", "tcpSocket"} & set(probe):
                assert probe[kind]["port"] in ports | numbers
        assert container["resources"]["requests"]["memory"]
        assert container["resources"]["limits"]["memory"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes


def test_services_lead_to_pods_and_settings_are_ours() -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in DEPLOYMENTS]
    for service in (one for one in OBJECTS if one["kind"] == "Service"):
        assert service["spec"]["selector"] in labels
    for folder in (BASE, GPU):
        (made,) = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
        assert {line.partition("=")[0] for line in made["literals"]} <= SETTINGS
    workers = next(one for one in DEPLOYMENTS if one["metadata"]["name"] == "shoal-gpu-worker")
    (worker,) = workers["spec"]["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_a_dask_scheduler_starts_as_the_manifest_says() -> None:
    scheduler = next(one for one in DEPLOYMENTS if one["metadata"]["name"] == "shoal-dask")
    words = scheduler["spec"]["template"]["spec"]["containers"][0]["command"]
    local = {"8786": "0", ":8787": "127.0.0.1:0"}
    process = subprocess.Popen(
        [*command([local.get(word, word) for word in words]), "--host", "127.0.0.1"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    try:
        said = next(line for line in process.stderr if "Scheduler at:" in line)
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()

    assert "tcp://127.0.0.1:" in said
