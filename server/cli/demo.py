"""`shoal demo`: the whole service on real documents, from import to named groups."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
from clusters.v1 import cluster_requests_pb2

from server.cli.arguments import RunWords, create_request
from server.cli.connection import Connection, connect
from server.cli.console import say, stdout
from server.cli.demo_documents import Document, standard_library
from server.cli.faults import CallFailedError
from server.cli.follow import Watch
from server.cli.importing import progress_bar, say_report
from server.cli.options import DataDirOption
from server.cli.run import watch_to_end
from server.config import environment_without_settings
from server.errors import InvalidRequestError, NotFoundError, UnavailableError, Violation
from server.tenancy import DEV_NAMESPACE, FIRST_TEMPLATE

COLLECTION = "stdlib"
N_DIMS = 128
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 30.0

# Chosen by looking: 8 functions make a subject, and the few that fit nowhere stay noise.
PARAMS = {
    "hdbscan": ["min_cluster_size=8", "min_samples=3"],
    "kmeans": ["n_clusters=40"],
}
DEFAULT_DATA_DIR = Path(".demo")


def demo(
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="hdbscan or kmeans; repeatable (default: both)."),
    ] = None,
    data_dir: DataDirOption = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1000, help="Groups to show.")] = 12,
    keep_serving: Annotated[
        bool, typer.Option("--keep-serving", help="Leave the server running until Ctrl-C.")
    ] = False,
) -> None:
    """Cluster the documentation of Python's standard library, through a real server.

    Needs no download. Takes what it finds on this machine, embeds it by TF-IDF and a
    truncated SVD, imports it, serves it, and runs HDBSCAN and KMeans over gRPC.
    """
    methods = method or list(PARAMS)
    _check(methods)
    began_s = time.monotonic()
    folder = (data_dir or DEFAULT_DATA_DIR).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{COLLECTION}.parquet"
    _write_documents(file)
    with _served(folder) as address:
        say(f"shoal serves {address}, its data is in {folder}")
        _import(file, folder)
        with connect(address, None, DEV_NAMESPACE) as connection:
            for chosen in methods:
                _cluster(connection, chosen, top)
        say(f"\nall of it took {time.monotonic() - began_s:.0f} s")
        _say_next(address, folder, methods[0], is_serving=keep_serving)
        if keep_serving:
            # Ctrl-C is how this ends.
            with suppress(KeyboardInterrupt):
                signal.pause()


def _check(methods: list[str]) -> None:
    unknown = [name for name in methods if name not in PARAMS]
    if unknown:
        allowed = ", ".join(PARAMS)
        raise InvalidRequestError(
            [Violation("--method", f"{name!r} is not one of {allowed}") for name in unknown]
        )


def _write_documents(file: Path) -> None:
    # Each loads a library that takes a while, and only the demo needs.
    import pyarrow as pa
    import pyarrow.parquet as pq

    from gpu.text import embed_texts

    with stdout().status("reading the documentation of Python's standard library"):
        documents = standard_library()
    if not documents:
        raise NotFoundError(
            "documentation", "the standard library", "its sources are not installed"
        )
    say(f"found {len(documents):,} documented functions, classes and methods")
    with stdout().status("embedding it by TF-IDF and a truncated SVD"):
        vectors = embed_texts([document.words for document in documents], N_DIMS)
    columns = {
        name: [getattr(document, name) for document in documents]
        for name in Document.__dataclass_fields__
    }
    flat = pa.array(vectors.ravel(), pa.float32())
    columns["lsa"] = pa.FixedSizeListArray.from_arrays(flat, N_DIMS)
    pq.write_table(pa.table(columns), file)
    say(f"embedded it in {N_DIMS} dimensions: {file}")


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Run a real server in a process of its own; gives its address."""
    command = [sys.executable, "-P", "-m", "server.cli", "serve", "--dev", "--json"]
    command += ["--listen", "127.0.0.1:0", "--data-dir", str(folder), "--shutdown-grace-s", "5"]
    log_path = folder / "server.log"
    with log_path.open("w", encoding="utf-8") as log, _signals_as_exit():
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # The demo must not touch the stores that this shell's settings may name.
            env=environment_without_settings(),
            # Ctrl-C is for the demo, which then stops its server in order.
            start_new_session=True,
        )
        try:
            yield _address_of(process, log_path)
        finally:
            _stop(process)


def _address_of(process: subprocess.Popen[str], log_path: Path) -> str:
    assert process.stdout is not None
    with stdout().status("starting a server"):
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        line = process.stdout.readline() if ready else ""
    if not line:
        raise UnavailableError(f"the demo's server did not start; {log_path} says why")
    address: str = json.loads(line)["address"]
    return address


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _signals_as_exit() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception, so that the server is stopped."""

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)

    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _import(file: Path, folder: Path) -> None:
    from server.qdrant.client import connect as connect_qdrant
    from server.qdrant.embedded.process import attach_or_start
    from server.qdrant.importer import import_parquet

    name = FIRST_TEMPLATE.format(collection_id=COLLECTION)
    with attach_or_start(folder) as embedded, progress_bar() as progress:
        client = connect_qdrant(embedded.address)
        try:
            # An earlier demo may have been another Python's.
            client.delete_collection(name)
            report = import_parquet(client, name, [file], progress=progress)
        finally:
            client.close()
    say_report(report, COLLECTION, DEV_NAMESPACE)


def _cluster(connection: Connection, method: str, top: int) -> None:
    name = _name(method)
    say(f"\n{method} with {', '.join(PARAMS[method])}")
    _forget(connection, name)
    words = RunWords([COLLECTION], method, name=name, params=PARAMS[method])
    cluster = connection.call(connection.clusters.CreateCluster, create_request(words))
    watched = Watch(cluster.cluster_id, cluster.last_run_id)
    watch_to_end(connection, watched, top=top, title_field="name", json_output=False)


def _forget(connection: Connection, name: str) -> None:
    """Remove the cluster that an earlier demo made, with its outputs."""
    request = cluster_requests_pb2.DeleteClusterRequest(cluster_id=name)
    try:
        connection.call(connection.clusters.DeleteCluster, request)
    except CallFailedError as error:
        if error.reason != "CLUSTER_NOT_FOUND":
            raise


def _name(method: str) -> str:
    return f"{COLLECTION}-{method}"


def _say_next(address: str, folder: Path, method: str, *, is_serving: bool) -> None:
    shoal = _program()
    data_dir = os.path.relpath(folder)
    say("try next:")
    if is_serving:
        say(f"  export SHOAL_SERVER={address}   # it serves until Ctrl-C")
    else:
        say(f"  {shoal} serve --dev --data-dir {data_dir}   # then, in another terminal:")
    say(f"  {shoal} groups {_name(method)}")
    say(f"  {shoal} members {_name(method)} cl_0")
    say(f"  {shoal} run --collection {COLLECTION} --method kmeans --param n_clusters=12 \\")
    say("""      --filter '{"kind": "class"}'""")


def _program() -> str:
    """Say how this command was called, for the next one."""
    called = Path(sys.argv[0])
    if called.name == "shoal" and called.is_file() and called.absolute().is_relative_to(Path.cwd()):
        return os.path.relpath(called)
    return "shoal"
