"""A strict stand-in for CuPy: it computes with NumPy and refuses what CuPy refuses.

Turning a device array into a NumPy array, a NumPy array as arithmetic partner or as right-hand
side of a slice, functions that are not listed. So it shows that host and device arrays are not
mixed, and nothing about CUDA: real hardware is asked by tests/gpu_device.
"""

import types
from operator import attrgetter

import numpy as np

FUNCTIONS = (
    *(
        "abs",
        "arange",
        "argpartition",
        "array",
        "asarray",
        "ascontiguousarray",
        "concatenate",
        "empty",
        "empty_like",
        "flatnonzero",
        "full",
    ),
    *("isfinite", "linalg.eigh", "maximum", "median", "sqrt", "take_along_axis", "where"),
    *("zeros", "zeros_like"),
)
"""Functions of CuPy that gpu calls; tests/gpu/test_device_calls.py asks CuPy for them."""


METHODS = {
    **dict.fromkeys(("all", "any", "max", "min"), ("axis", "out", "keepdims")),
    **dict.fromkeys(("mean", "sum", "argmax", "argmin"), ("axis", "dtype", "out", "keepdims")),
    "argsort": ("axis", "kind"),
    "astype": ("dtype", "order", "casting", "subok", "copy"),
    "clip": ("min", "max", "out"),
    "copy": ("order",),
    "cumsum": ("axis", "dtype", "out"),
    "fill": ("value",),
    "item": (),
    "ravel": ("order",),
    "reshape": ("order",),
    "std": ("axis", "dtype", "out", "ddof", "keepdims"),
    "tolist": (),
}
"""Methods of CuPy's arrays that gpu may call, with the arguments that CuPy takes."""


def opened(value, *, where):
    """Give the NumPy array behind a strict one; refuses NumPy arrays that CuPy would refuse."""
    if isinstance(value, StrictArray):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> in {where}")
    if isinstance(value, list | tuple):
        return type(value)(opened(item, where=where) for item in value)
    return value


def closed(value):
    # CuPy has no scalars: reductions give arrays without dimensions.
    return StrictArray(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def index(key):
    """CuPy takes NumPy arrays as indices and copies them over."""
    if isinstance(key, tuple):
        return tuple(index(part) for part in key)
    return key._host if isinstance(key, StrictArray) else key


class StrictArray:
    __module__ = "cupy"
    __array_priority__ = 100

    def __init__(self, host):
        self._host = host

    def __array__(self, *_args, **_kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    __array_ufunc__ = None  # NumPy's operators then leave mixed operands to ours, which refuse.

    def get(self):
        return self._host.copy()

    def set(self, host):
        if not isinstance(host, np.ndarray) or (host.dtype, host.shape) != (self.dtype, self.shape):
            raise TypeError("only a numpy.ndarray of the same type and shape can be set")
        self._host[...] = host

    def __len__(self):
        return len(self._host)

    def __getitem__(self, key):
        return StrictArray(np.asarray(self._host[index(key)]))

    def __setitem__(self, key, value):
        parts = key if isinstance(key, tuple) else (key,)
        plain = all(isinstance(part, slice | int) or part is Ellipsis for part in parts)
        if isinstance(value, np.ndarray) and plain:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._host[index(key)] = value._host if isinstance(value, StrictArray) else value

    def __getattr__(self, name):
        if name.startswith("__"):  # NumPy would find the buffer by these.
            raise AttributeError(name)
        attribute = getattr(self._host, name)
        if name in ("shape", "ndim", "dtype", "size", "flags", "nbytes"):
            return attribute
        if not callable(attribute):
            return closed(attribute)
        if name not in METHODS:
            raise AttributeError(f"the stand-in for an array of cupy has no {name}")

        def call(*args, **kwargs):
            if unknown := set(kwargs) - set(METHODS[name]):
                raise TypeError(f"{name}() of cupy takes no {', '.join(sorted(unknown))}")
            args = [opened(arg, where=name) for arg in args]
            kwargs = {key: opened(value, where=name) for key, value in kwargs.items()}
            return closed(attribute(*args, **kwargs))

        return call

    def __bool__(self):
        return bool(self._host)

    def __int__(self):
        return int(self._host)

    def __float__(self):
        return float(self._host)

    def __iter__(self):
        raise AssertionError("a device array is walked element by element")


def operator(name):
    def apply(self, other=None):
        operands = () if other is None else (opened(other, where=name),)
        result = getattr(self._host, name)(*operands)
        if name.startswith("__i") and name != "__invert__":
            return self
        return closed(result)

    return apply


OPERATORS = (
    *(
        "add",
        "radd",
        "iadd",
        "sub",
        "rsub",
        "isub",
        "pow",
        "mul",
        "rmul",
        "imul",
        "truediv",
        "itruediv",
    ),
    *("matmul", "and", "iand", "or", "invert", "neg", "eq", "ne", "lt", "le", "gt", "ge"),
)
for _name in OPERATORS:
    setattr(StrictArray, f"__{_name}__", operator(f"__{_name}__"))


class StrictModule(types.ModuleType):
    float32, float64, int32, nan = np.float32, np.float64, np.int32, np.nan
    ndarray = StrictArray

    @property
    def linalg(self):
        return types.SimpleNamespace(eigh=self._function("linalg.eigh"))

    def __getattr__(self, name):
        return self._array if name in ("array", "asarray") else self._function(name)

    @staticmethod
    def _function(name):
        if name not in FUNCTIONS:
            raise AttributeError(f"the stand-in for cupy has no {name}")

        def call(*args, **kwargs):
            args = [opened(arg, where=name) for arg in args]
            kwargs = {key: opened(value, where=name) for key, value in kwargs.items()}
            found = attrgetter(name)(np)(*args, **kwargs)
            return tuple(map(closed, found)) if isinstance(found, tuple) else closed(found)

        return call

    @staticmethod
    def _array(value, dtype=None, order=None):
        host = value._host if isinstance(value, StrictArray) else value
        return StrictArray(np.array(host, dtype=dtype, order=order or "K"))
