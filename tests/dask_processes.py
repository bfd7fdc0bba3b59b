"""A Dask scheduler and its workers as processes of their own, as an operator runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

UP_WITHIN_S = 60.0
"""On a busy machine; a worker imports for a second or two."""

DOWN_WITHIN_S = 10.0

_IMPORTED_FROM = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]


class DaskProcesses:
    """A scheduler on a port of its own, and workers of one thread each.

    Parameters
    ----------
    folder : Path
        For logs and what workers keep.
    tls : mapping of str to str, or None
        Variables by which Dask finds certificates; then it speaks nothing but TLS.
    """

    def __init__(self, folder: Path, tls: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._tls = dict(tls or {})
        self._port = _free_port()
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    @property
    def address(self) -> str:
        """Where the scheduler listens."""
        return f"{'tls' if self._tls else 'tcp'}://127.0.0.1:{self._port}"

    def start_scheduler(self) -> None:
        """Start the scheduler, on the same port each time, and wait until it answers."""
        self._scheduler = self._start(
            "scheduler", "--protocol", self.address.partition(":")[0], "--host", "127.0.0.1",
            "--port", str(self._port), "--no-dashboard",
        )  # fmt: skip
        deadline = time.monotonic() + UP_WITHIN_S
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port), timeout=1),
            ):
                return
            assert self._scheduler.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def start_worker(self, *flags: str, python_path: str = "") -> None:
        """Start a worker; who needs it waits for it."""
        n = len(self._workers)
        self._workers.append(
            self._start(
                "worker", self.address, "--nthreads", "1", "--host", "127.0.0.1",
                "--no-dashboard", "--name", f"worker-{n}", "--memory-limit", "0",
                "--local-directory", str(self._folder), *flags, python_path=python_path,
            )
        )  # fmt: skip

    def kill_scheduler(self) -> None:
        """End the scheduler at once."""
        assert self._scheduler is not None
        self._scheduler.kill()
        self._scheduler.wait(DOWN_WITHIN_S)

    def stop_workers(self) -> None:
        """End all workers."""
        workers, self._workers = self._workers, []
        _stop(workers)

    def stop(self) -> None:
        """End everything."""
        self.stop_workers()
        if self._scheduler is not None:
            _stop([self._scheduler])

    def log(self) -> str:
        """Give what all have logged."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("*.log")))

    def _start(self, what: str, *arguments: str, python_path: str = "") -> subprocess.Popen[bytes]:
        log = self._folder / f"{what}-{len(self._workers)}-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", what, *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **self._tls,
                    # Functions of tests are imported where they run.
                    "PYTHONPATH": os.pathsep.join(filter(None, [python_path, *_IMPORTED_FROM])),
                    "OMP_NUM_THREADS": "1",
                },
                start_new_session=True,
            )


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(DOWN_WITHIN_S)
        except subprocess.TimeoutExpired:
            # Its nanny's worker is in its session, and would outlive it.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(DOWN_WITHIN_S)


def _free_port() -> int:
    with socket.socket() as sought:
        sought.bind(("127.0.0.1", 0))
        return int(sought.getsockname()[1])


@contextlib.contextmanager
def dask_processes(
    folder: Path, n_workers: int, *flags: str, tls: Mapping[str, str] | None = None
) -> Iterator[DaskProcesses]:
    """Run a scheduler and workers while the block is open."""
    processes = DaskProcesses(folder, tls)
    try:
        processes.start_scheduler()
        for _ in range(n_workers):
            processes.start_worker(*flags)
        yield processes
    finally:
        processes.stop()
