"""All result files as tables and plots: `docs/performance.md` and `docs/performance/*.svg`.

    python benchmarks/render.py

Any file in `benchmarks/results` gets a section: a table of its rows, the machine they were
measured on, and, where the file says what to draw (`about`, as `machine.write_result` puts
it), a plot. Nothing in here knows a benchmark by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from machine import RESULTS

DOCS = Path(__file__).parents[1] / "docs"
INTRODUCTION = """# How fast

Written by `benchmarks/render.py` from `benchmarks/results/*.json`; `make bench` measures anew.
Peers run in the same process run as shoal and take turns with it. Ratios hold from machine to
machine, seconds do not; the load average tells how busy the machine was.
"""

BAR_PX = 18
GAP_PX = 6
LABEL_PX = 360
PLOT_PX = 380
VALUE_PX = 90


def render(results: Path = RESULTS, docs: Path = DOCS) -> Path:
    """Write the page and its plots; give the page's path."""
    plots = docs / "performance"
    plots.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    for path in sorted(results.glob("*.json")):
        body = json.loads(path.read_text())
        parts.append(_section(body, path.stem, plots))
    page = docs / "performance.md"
    page.write_text("\n".join(parts))
    return page


def _section(body: Mapping[str, Any], name: str, plots: Path) -> str:
    about = body.get("about") or {}
    lines = [f"## {about.get('title') or name}", ""]
    if about.get("note"):
        lines += [about["note"], ""]
    lines += [_machine(body.get("machine", {})), ""]
    rows = [row for row in body.get("results", []) if isinstance(row, dict)]
    if about.get("value"):
        svg = plots / f"{name}.svg"
        svg.write_text(bars(rows, about["value"], about["labels"]))
        lines += [f"![{about.get('title') or name}](performance/{name}.svg)", ""]
    return "\n".join([*lines, *_table(rows)]) + "\n"


def _machine(facts: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{k} {v}" for k, v in (facts.get("packages") or {}).items() if v)
    said = [
        f"{facts.get('processor', 'unknown processor')}, {facts.get('cores', '?')} cores",
        str(facts.get("device") or ""),
        f"load average {facts['load_average_1m']}" if "load_average_1m" in facts else "",
        f"Python {facts['python']}" if facts.get("python") else "",
        packages,
        f"measured {facts['measured_at']}" if facts.get("measured_at") else "",
    ]
    return "; ".join(part for part in said if part) + "."


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    is_right = [
        all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns
    ]
    lines = [
        "| " + " | ".join(name.replace("_", " ") for name in columns) + " |",
        "|" + "|".join("--:" if right else "---" for right in is_right) + "|",
    ]
    for row in rows:
        lines.append("| " + " | ".join(shown(row.get(name)) for name in columns) + " |")
    return lines


def shown(value: Any) -> str:
    """Write a value for people: three digits, or whole numbers with their thousands."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(shown(part) for part in value)
    return str(value).replace("|", "\\|")


def bars(rows: Sequence[Mapping[str, Any]], value: str, labels: Sequence[str]) -> str:
    """Draw one column of a result as bars, in groups that share all labels but the last."""
    drawn = [row for row in rows if isinstance(row.get(value), int | float)]
    most = max((float(row[value]) for row in drawn), default=0.0) or 1.0
    y = GAP_PX
    parts: list[str] = []
    for group, members in groupby(drawn, key=lambda row: [row.get(n) for n in labels[:-1]]):
        if group:
            y += BAR_PX
            heading = escape(", ".join(shown(part) for part in group))
            parts.append(f'<text x="0" y="{y - 4}" font-weight="bold">{heading}</text>')
        for row in members:
            width = PLOT_PX * float(row[value]) / most
            label = escape(shown(row.get(labels[-1])))
            middle = y + BAR_PX - 5
            parts += [
                f'<text x="{LABEL_PX - 8}" y="{middle}" text-anchor="end">{label}</text>',
                f'<rect x="{LABEL_PX}" y="{y}" width="{width:.1f}" height="{BAR_PX - 2}" '
                'fill="#4477aa"/>',
                f'<text x="{LABEL_PX + width + 6:.1f}" y="{middle}">{shown(row[value])}</text>',
            ]
            y += BAR_PX
        y += GAP_PX
    width = LABEL_PX + PLOT_PX + VALUE_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y + 22}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{y + 22}" fill="white"/>\n'
        + "\n".join(parts)
        + f'\n<text x="{LABEL_PX}" y="{y + 14}" fill="#666666">{escape(value.replace("_", " "))}'
        "</text>\n</svg>\n"
    )


if __name__ == "__main__":
    print(f"wrote {render()}")
