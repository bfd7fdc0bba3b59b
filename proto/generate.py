"""Make and check what is derived from the contract in ``proto/clusters/v1``.

``python proto/generate.py`` writes the Python stubs beside the protos, the descriptor set
(imports and comments included) that the REST gateway reads, and the OpenAPI document.
``--check`` writes nothing and fails when one of those files is stale. ``--lint`` runs buf (lint,
format, and breaking changes against ``baseline.binpb``) and validates the OpenAPI document.
``--update-baseline`` accepts the protos as they are as the new baseline.

Nothing is fetched: protoc comes with grpcio-tools, the Google protos with
googleapis-common-protos, and buf reads the image that protoc built.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc_tools
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from openapi import openapi_of

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("clusters/v1")
GATEWAY_PACKAGE = Path("clusters/gateway/v1")
"""What Envoy asks the server. Not part of the contract, so neither described nor judged."""
DESCRIPTOR_SET = PACKAGE / "descriptor_set.binpb"
OPENAPI = PACKAGE / "openapi.json"
BASELINE = ROOT / "baseline.binpb"
STUB_PATTERNS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


class ToolError(Exception):
    """A tool found a fault, or is not installed; the message is for people."""


def main(argv: list[str] | None = None) -> int:
    """Do what the arguments ask and return the exit status: 0 when all is well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="fail when a derived file is stale")
    parser.add_argument("--lint", action="store_true", help="buf lint, format and breaking")
    parser.add_argument("--update-baseline", action="store_true", help="accept the protos as is")
    wanted = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            built = Path(scratch)
            if wanted.check or not (wanted.lint or wanted.update_baseline):
                build(built)
                if wanted.check:
                    check(built)
                else:
                    install(built)
            else:
                build_descriptor_set(built)
            if wanted.lint:
                lint(built / DESCRIPTOR_SET, built / OPENAPI)
            if wanted.update_baseline:
                BASELINE.write_bytes(without_comments((built / DESCRIPTOR_SET).read_bytes()))
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def build(target: Path) -> None:
    """Write the stubs and the descriptor set under `target`."""
    build_descriptor_set(target)
    run_protoc(
        [PACKAGE, GATEWAY_PACKAGE],
        f"--plugin=protoc-gen-mypy={tool('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={tool('protoc-gen-mypy_grpc')}",
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        # Concrete: a servicer may leave calls out, which then answer UNIMPLEMENTED.
        f"--mypy_grpc_out=quiet,generate_concrete_servicer_stubs:{target}",
    )


def build_descriptor_set(target: Path) -> None:
    """Write the descriptor set, and the OpenAPI document made of it, under `target`."""
    (target / PACKAGE).mkdir(parents=True, exist_ok=True)
    run_protoc(
        [PACKAGE],
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={target / DESCRIPTOR_SET}",
    )
    document = openapi_of((target / DESCRIPTOR_SET).read_bytes())
    (target / OPENAPI).write_text(document, encoding="utf-8")


def run_protoc(packages: list[Path], *options: str) -> None:
    """Run protoc over all protos of some packages."""
    # protobuf's own protos lie in grpcio-tools, the others beside their generated modules.
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    google_apis = Path(annotations_pb2.__file__).parents[2]
    folders = [ROOT / package for package in packages]
    protos = sorted(path.relative_to(ROOT) for folder in folders for path in folder.glob("*.proto"))
    includes = [f"-I{folder}" for folder in (ROOT, well_known, google_apis)]
    run_tool([sys.executable, "-m", "grpc_tools.protoc", *includes, *options, *map(str, protos)])


def install(built: Path) -> None:
    """Replace the checked-in files by the built ones; stubs of removed protos go."""
    for name in derived_files(ROOT) - derived_files(built):
        (ROOT / name).unlink()
    for name in sorted(derived_files(built)):
        shutil.copyfile(built / name, ROOT / name)


def check(built: Path) -> None:
    """Fail when a checked-in file is missing, left over, or differs from the built one."""
    fresh, present = derived_files(built), derived_files(ROOT)
    stale = fresh ^ present
    stale |= {
        name
        for name in fresh & present
        if (built / name).read_bytes() != (ROOT / name).read_bytes()
    }
    if stale:
        names = ", ".join(sorted(map(str, stale)))
        raise ToolError(f"stale: {names}\nrun `python proto/generate.py` and commit the result")


def derived_files(root: Path) -> set[Path]:
    """List the generated files under `root`, relative to it."""
    found = {path.relative_to(root) for glob in STUB_PATTERNS for path in root.glob(f"**/{glob}")}
    return found | {name for name in (DESCRIPTOR_SET, OPENAPI) if (root / name).exists()}


def lint(image: Path, document: Path) -> None:
    """Run buf's three checks and OpenAPI's, and report the faults of all of them at once."""
    if not BASELINE.exists():
        raise ToolError(f"{BASELINE.name} is missing; make it with --update-baseline")
    buf = tool("buf")
    # Only our own package is judged; the Google protos are in the image as well.
    scope = ["--config", str(ROOT / "buf.yaml"), "--path", str(PACKAGE)]
    checks = {
        "buf lint": [buf, "lint", str(image), *scope],
        "buf format": [buf, "format", "--diff", "--exit-code", str(ROOT)],
        "buf breaking": [buf, "breaking", str(image), "--against", str(BASELINE), *scope],
        "openapi-spec-validator": [tool("openapi-spec-validator"), str(document)],
    }
    faults = []
    for name, command in checks.items():
        try:
            run_tool(command)
        except ToolError as error:
            faults.append(f"{name}:\n{error}")
    if faults:
        raise ToolError("\n".join(faults))


def without_comments(descriptor_set: bytes) -> bytes:
    """Drop what a comparison does not need, so that editing a comment leaves the baseline."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set)
    for file in files.file:
        file.ClearField("source_code_info")
    return files.SerializeToString(deterministic=True)


def tool(name: str) -> str:
    """Find a program of this Python environment."""
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is not installed; install the `dev` extra")
    return path


def run_tool(command: list[str]) -> None:
    """Run a program, and raise with its output when it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError((done.stdout + done.stderr).strip() or f"{command[0]} failed silently")


if __name__ == "__main__":
    sys.exit(main())
