"""Documents that any machine with Python has: the documentation of its standard library."""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "idlelib", "lib2to3"}
    | {"turtledemo", "ensurepip", "_pyrepl", "__pycache__"}
)
MIN_TEXT_LENGTH = 40

_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[_.]+")
_KINDS: dict[type[ast.AST], str] = {
    ast.FunctionDef: "function",
    ast.AsyncFunctionDef: "function",
    ast.ClassDef: "class",
}


@dataclass(frozen=True)
class Document:
    """A function, class or method with its docstring.

    Attributes
    ----------
    name : str
        As it is imported: ``email.message.Message.get_payload``.
    kind : str
        function, class or method.
    """

    name: str
    module: str
    kind: str
    text: str
    line: int

    @property
    def words(self) -> str:
        """What is embedded: its name in words, and its docstring."""
        return f"{_CAMEL_HUMP.sub(' ', self.name)} {self.text}"


def standard_library() -> list[Document]:
    """Read the documentation of the running Python's standard library, in order of names.

    Sources are parsed, never imported: nothing of them runs.
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = {document.name: document for path in _sources(root) for document in _read(path, root)}
    return [found[name] for name in sorted(found)]


def _sources(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not SKIPPED_FOLDERS.intersection(parts) and not _is_private(path.stem):
            yield path


def _read(path: Path, root: Path) -> Iterator[Document]:
    parts = path.relative_to(root).with_suffix("").parts
    module = ".".join(part for part in parts if part != "__init__")
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError:  # Some distributions ship files for other Pythons.
        return
    yield from _within(tree, module, module, is_class=False)


def _within(node: ast.AST, owner: str, module: str, *, is_class: bool) -> Iterator[Document]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if _is_private(child.name):
            continue
        name = f"{owner}.{child.name}"
        text = ast.get_docstring(child) or ""
        kind = "method" if is_class and not isinstance(child, ast.ClassDef) else None
        if len(text) >= MIN_TEXT_LENGTH:
            yield Document(name, module, kind or _KINDS[type(child)], text, child.lineno)
        if isinstance(child, ast.ClassDef):
            yield from _within(child, name, module, is_class=True)


def _is_private(name: str) -> bool:
    return name.startswith("_") and name != "__init__"
