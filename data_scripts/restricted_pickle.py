"""Unpickle numpy arrays and nothing else. A pickle can call any function it names; this one may name six."""

from __future__ import annotations

import io
import pickle

import numpy as np

ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
NUMPY_CORE = np.ndarray.__reduce__(np.zeros(1))[0].__module__  # its name changed with numpy 2


class ArrayUnpickler(pickle.Unpickler):
    """Plain containers, numbers, strings and numpy arrays; any other global is refused."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(
                f"refused to load {module}.{name}: only numpy arrays are expected in this file"
            )
        return super().find_class(NUMPY_CORE if "multiarray" in module else module, name)


def load_arrays(content: bytes, encoding: str = "ASCII") -> object:
    """The pickled object. Raises pickle.UnpicklingError on any global outside ALLOWED."""
    return ArrayUnpickler(io.BytesIO(content), encoding=encoding).load()
