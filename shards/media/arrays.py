"""Read arrays from NumPy and MATLAB files without running any code from them."""

import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARRAY_SUFFIXES = frozenset({".npy", ".mat"})


def open_array(path: Path, dimensions: int) -> NDArray[Any]:
    """Returns the array of an NPY file, or the one array with `dimensions` axes of a MATLAB file (up to version 7.2).

    An NPY file is memory-mapped. Raises `ValueError` if there is no such array of numbers, or more than one.
    """
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        # NumPy parses a header as source code.
        except (TokenError, SyntaxError) as error:
            raise ValueError(f"'{path.name}' has a damaged header ({error})") from error
    else:
        values = _one_variable(path, dimensions)
    if values.ndim != dimensions or values.dtype.kind not in "iufb":
        raise ValueError(
            f"'{path.name}' has shape {values.shape} of {values.dtype}, needs {dimensions} axes of numbers"
        )
    return values


def _one_variable(path: Path, dimensions: int) -> NDArray[Any]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        known = {name: shape for name, shape, kind in whosmat(path) if kind not in ("char", "cell", "struct")}
        fitting = [name for name, shape in known.items() if len(shape) == dimensions]
        if len(fitting) != 1:
            held = ", ".join(f"{name} {shape}" for name, shape in known.items()) or "no arrays"
            raise ValueError(f"'{path.name}' needs one array of {dimensions} axes, it has {held}")
        return loadmat(path, variable_names=fitting)[fitting[0]]
    # NotImplementedError: SciPy, for version 7.3, which is HDF5.
    except (MatReadError, zlib.error, TypeError, NotImplementedError) as error:
        raise ValueError(f"'{path.name}' cannot be read as a MATLAB file up to version 7.2 ({error})") from error
