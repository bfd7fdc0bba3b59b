"""How Sphinx builds the site: `make docs`. Nothing in it is loaded from elsewhere."""

from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

project = "shoal"
release = metadata.version("shoal")
author = project
language = "en"
root_doc = "index"
exclude_patterns = ["README.md"]  # What a git host shows of this folder; index.md includes it.
extensions = ["myst_parser"]
myst_heading_anchors = 3
nitpicky = True
smartquotes = False
highlight_language = "text"

html_theme = "furo"
html_title = f"shoal {release}"
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # It would fetch pages, which files opened from a disk cannot.
html_static_path = ["static"]
html_css_files = ["tables.css"]


def setup(app: Sphinx) -> None:
    """Show the repository's own changelog, which lies outside this folder."""
    app.connect("source-read", _read_changelog)


def _read_changelog(app: Sphinx, name: str, source: list[str]) -> None:
    if name == "changelog":
        source[0] = (Path(app.srcdir).parent / "CHANGELOG.md").read_text(encoding="utf-8")
