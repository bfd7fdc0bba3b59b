"""Every call into the GPU's libraries, held to the signatures of those that are installed.

It reads our source, so a new call is looked at without being listed, and needs the libraries but
no device: a misspelt keyword costs seconds here, and the time of a device elsewhere.
"""

import ast
import inspect
import re
from importlib import import_module
from operator import attrgetter
from pathlib import Path

import pytest
from strict_arrays import FUNCTIONS, METHODS

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for pattern in ("gpu/*.py", "benchmarks/device*.py", "tests/gpu_device/*.py")
    for path in ROOT.glob(pattern)
)
LIBRARIES = ("cupy", "cudf", "cuml", "rmm")
MISSING = [name for name in LIBRARIES if not import_module("importlib.util").find_spec(name)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("default"),  # What they warn of is not ours to mend.
]


class Calls(ast.NodeVisitor):
    """Collects a file's uses of the libraries: what is named, and how it is called."""

    def __init__(self, tree):
        self.n_bound, self._tree = 0, tree
        self.faults = {}  # As a set that keeps its order.
        self._known = {"xp": "cupy"}

    def visit_FunctionDef(self, node):
        before = dict(self._known)
        self.generic_visit(node)
        self._known = before

    def visit_Import(self, node):
        self._known |= {each.name: each.name for each in node.names if _is_theirs(each.name)}

    def visit_ImportFrom(self, node):
        for each in node.names:
            self._known.pop(each.name, None)
            if _is_theirs(node.module or ""):
                self._known[each.name] = f"{node.module}.{each.name}"

    def visit_Attribute(self, node):
        self._object(node)
        self.generic_visit(node)

    def visit_Call(self, node):
        called = self._object(node.func)
        if called is not None:
            self._bind(node, called)
        self.generic_visit(node)

    def _object(self, node):
        """Give what an expression names in a library; a call of a class gives its instances."""
        if isinstance(node, ast.Name):
            return _load(self._known[node.id]) if node.id in self._known else None
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id == "array_module":
                return _load("cupy")
            made = self._object(node.func)
            return made if inspect.isclass(made) else None
        if not isinstance(node, ast.Attribute):
            return None
        if node.attr == "_xp":
            return _load("cupy")
        owner = self._object(node.value)
        if owner is None:
            return None
        if not hasattr(owner, node.attr):
            if inspect.isclass(owner):  # An attribute that only a fitted model has.
                return None
            self._fault(node, f"{ast.unparse(node)} does not exist")
        return getattr(owner, node.attr, None)

    def _bind(self, node, called):
        try:
            parameters = inspect.signature(called)
        except (TypeError, ValueError):  # Compiled: it tells no names.
            return
        is_method = isinstance(node.func, ast.Attribute) and inspect.isclass(
            self._object(node.func.value)
        )
        names = [each for word in node.keywords for each in self._names(word)]
        place = [None] * (len(node.args) + is_method)
        try:
            parameters.bind_partial(*place, **dict.fromkeys(names))
        except TypeError as error:
            self._fault(node, f"{ast.unparse(node.func)}: {error}")
        self.n_bound += 1

    def _fault(self, node, said):
        self.faults[f"line {node.lineno}: {said}"] = None

    def _names(self, word):
        """Give the names that a keyword argument stands for, of ``**`` those of its dict."""
        if word.arg is not None:
            return [word.arg]
        literals = [
            node.value
            for node in ast.walk(self._tree)
            if isinstance(node, ast.Assign | ast.Return)
            and isinstance(node.value, ast.Dict)
            and self._fills(node, word.value)
        ]
        return list(dict.fromkeys(key.value for each in literals for key in each.keys if key))

    def _fills(self, node, value):
        if isinstance(node, ast.Assign):
            return [ast.unparse(target) for target in node.targets] == [ast.unparse(value)]
        return isinstance(value, ast.Call) and any(
            isinstance(function, ast.FunctionDef)
            and function.name == ast.unparse(value.func)
            and node in ast.walk(function)
            for function in ast.walk(self._tree)
        )


def _is_theirs(name):
    return name.partition(".")[0] in LIBRARIES


def _load(name):
    """Import a module, or what a module has."""
    try:
        return import_module(name)
    except ImportError:
        module, _, own = name.rpartition(".")
        return getattr(import_module(module), own)


def calls_in(source):
    tree = ast.parse(source)
    calls = Calls(tree)
    calls.visit(tree)
    return calls


def test_every_call_fits_the_signature_of_what_it_calls():
    found = {path.relative_to(ROOT): calls_in(path.read_text()) for path in SOURCES}

    assert [f"{path}, {fault}" for path, calls in found.items() for fault in calls.faults] == []
    assert sum(calls.n_bound for calls in found.values()) > 50


def test_a_misspelt_name_and_keyword_are_found():
    source = """
import cupy
from cuml.cluster import KMeans
def make():
    return {"n_clusters": 3, "max_itr": 5}
how = {"init": "random", "n_ini": 1}
KMeans(**make()).fit(cupy.zeroes(3))
KMeans(**how).fit(x, weights=1)
array_module(x).concatenate([x], axes=0)
cupy.empty((2, 2), dtype=cupy.float32)
"""
    calls = calls_in(source)

    said = "\n".join(calls.faults)
    assert all(word in said for word in ("max_itr", "zeroes", "n_ini", "weights", "axes")), said
    assert len(calls.faults) == 5
    assert calls.n_bound == 6


def test_the_stand_in_for_cupy_has_nothing_that_cupy_lacks():
    import cupy

    for name in FUNCTIONS:
        assert callable(attrgetter(name)(cupy)), name
    for name, arguments in METHODS.items():
        # Compiled, so that only the first line of its documentation tells what it takes.
        signature = getattr(cupy.ndarray, name).__doc__.partition("\n")[0]
        assert all(re.search(rf"\b{each}\b", signature) for each in arguments), signature
