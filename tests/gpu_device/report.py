"""What `make gpu-check` leaves: a table at its end, and a result file with the device's name.

The file is written after each test, so that a run that is cut off has left what it found.
"""

import sys
from pathlib import Path

from gpu.backend import gpu_unusable

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OUTCOMES = ("passed", "failed", "skipped")


class Report:
    """A pytest plugin: counts outcomes by test, with the figures that tests record.

    Parameters
    ----------
    folder : Path
        Where the result file goes.
    """

    def __init__(self, folder):
        self._folder, self._rows, self._file = folder, {}, None

    def pytest_runtest_logreport(self, report):
        if report.when != "call" and report.passed:
            return
        path, _, name = report.nodeid.partition("::")
        test, _, params = name.rstrip("]").partition("[")
        row = self._rows.setdefault(
            test, {"file": Path(path).stem, "test": test, **dict.fromkeys(OUTCOMES, 0)}
        )
        row[report.outcome] += 1
        row["seconds"] = round(row.get("seconds", 0.0) + report.duration, 2)
        for figure, value in report.user_properties:
            row.setdefault("figures", {})[f"{params} {figure}".strip()] = value
        if gpu_unusable() is None:
            self._write()

    def pytest_terminal_summary(self, terminalreporter):
        line = terminalreporter.write_line
        if why := gpu_unusable():
            line(f"nothing was checked on a device, there is no usable GPU: {why}")
            return
        line(f"{'test':<78} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
        for row in self._rows.values():
            counts = f"{row['passed']:>7} {row['failed']:>7} {row['skipped']:>8}"
            line(f"{row['test'][:78]:<78} {counts} {row['seconds']:>8.1f}")
            for figure, value in row.get("figures", {}).items():
                line(f"    {figure}: {value}")
        line(f"written: {self._file}")

    def _write(self):
        if str(BENCHMARKS) not in sys.path:
            sys.path.insert(0, str(BENCHMARKS))
        from device import PACKAGES, device_facts, file_name
        from machine import About, machine_facts, write_result

        if self._file is None:
            self._machine = machine_facts(PACKAGES) | device_facts()
            self._file = self._folder / file_name(self._machine["device"], "gpu-check")
        about = About(
            title=f"Tests on a GPU: {self._machine['device']}",
            note="Of `make gpu-check`, by test over all its parameters.",
            value="",
            labels=(),
        )
        write_result(
            self._file,
            name="gpu-check",
            machine=self._machine,
            results=list(self._rows.values()),
            about=about,
        )
