"""The rules of the house that no type checker holds: who may import whom, and what must agree."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Which files may import a package; every other file of server/ and gpu/ may not.
ONLY_IN = {
    "motor": ["server/stores/mongo_connection.py"],
    "pymongo": ["server/stores/mongo"],
    "openai": ["server/labeling/client.py"],
    "prometheus_client": ["server/metrics.py"],
    "opentelemetry": ["server/tracing.py"],
    "dask": ["server/engine/", "gpu/distributed.py"],
    "distributed": ["server/engine/", "gpu/distributed.py"],
    "clusters": ["server/api/", "server/cli/"],
    "typer": ["server/cli/"],
    "rich": ["server/cli/"],
    "numba": ["gpu/compiled.py"],
    "cuml": ["gpu/"],
    "cudf": ["gpu/"],
    "cupy": ["gpu/"],
    "sklearn": ["gpu/"],
    "qdrant_client": ["server/"],
    "grpc": ["server/"],
}

# What a part of the house may import of ours.
ALLOWED_OF_OURS = {
    "gpu/": {"gpu"},
    "server/": {"server", "gpu", "clusters"},
}

# Only the pipeline and its stages compute; the command line's demo makes its vectors from text,
# and its comparison of runs measures how far they agree.
GPU_DOORS = {
    "server/jobs/pipeline.py": None,
    "server/jobs/stages/": None,
    "server/cli/": {"gpu.agreement", "gpu.text", "gpu.params", "gpu.errors", "gpu.backend"},
}
LIGHT_GPU_MODULES = {"gpu.params", "gpu.errors", "gpu.steps"}


def sources(*folders: str) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if "_pb2" not in path.name
    )


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Give every imported module, its line, and whether it is imported with the file."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_top
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno, at_top
            if node.module == "gpu":
                for alias in node.names:
                    yield f"gpu.{alias.name}", node.lineno, at_top


@pytest.mark.parametrize("path", sources("server", "gpu"), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    faults = []
    for module, line, _ in imports(path):
        package = module.split(".")[0]
        allowed = ONLY_IN.get(package)
        if allowed is not None and not any(name.startswith(place) for place in allowed):
            faults.append(f"{name}:{line} imports {module}; only {allowed} may")
        for folder, ours in ALLOWED_OF_OURS.items():
            is_ours = package in {"server", "gpu", "clusters", "tests", "benchmarks"}
            if name.startswith(folder) and is_ours and package not in ours:
                faults.append(f"{name}:{line} imports {module}")
    assert faults == []


@pytest.mark.parametrize("path", sources("server"), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_pipeline_calls_into_gpu(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    modules = {m for m, _, _ in imports(path) if m.startswith("gpu.")}
    for door, allowed in GPU_DOORS.items():
        if name.startswith(door):
            assert allowed is None or modules <= allowed
            return
    assert modules <= LIGHT_GPU_MODULES


@pytest.mark.parametrize("path", sources("gpu"), ids=lambda p: str(p.relative_to(ROOT)))
def test_device_libraries_are_imported_inside_functions(path: Path) -> None:
    eager = [
        f"{module} at line {line}"
        for module, line, at_top in imports(path)
        if at_top and module.split(".")[0] in {"cuml", "cudf", "cupy", "rmm"}
    ]
    assert eager == []


@pytest.mark.parametrize("path", sources("server", "gpu"), ids=lambda p: str(p.relative_to(ROOT)))
def test_only_config_reads_the_environment(path: Path) -> None:
    if path == ROOT / "server/config.py":
        return
    tree = ast.parse(path.read_text())
    readers = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv", "environb"}
    ]
    assert readers == []


def test_changelog_is_about_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest is not None
    assert newest[1] == version


def test_docs_name_every_setting_and_the_readme_every_target() -> None:
    from server.config import ClientSettings, Settings

    readme, table = ((ROOT / name).read_text() for name in ("README.md", "docs/settings.md"))
    fields = [*Settings.model_fields, *ClientSettings.model_fields]
    unnamed = [name for name in fields if f"`SHOAL_{name.upper()}`" not in table]
    unnamed += [
        name for name in re.findall(r"`(SHOAL_(?!TEST_|BENCH_)\w+)`", readme) if name not in table
    ]
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
    unnamed += [target for target in targets if f"make {target}" not in readme]
    assert unnamed == []


def test_lock_files_hold_hashes_and_no_addresses() -> None:
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-gpu.txt"):
        text = (ROOT / name).read_text()
        assert "://" not in text
        pinned = re.findall(r"^[A-Za-z0-9_.\[\]-]+==", text, re.M)
        assert len(pinned) > 30
        assert text.count("--hash=sha256:") >= len(pinned)
