"""Read arrays from NumPy and MATLAB files without running any code from them."""

import math
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ARRAY_SUFFIXES = frozenset({".npy", ".mat"})
# Most bytes of a MATLAB file's content, which is read as a whole.
MOST_BYTES = 2**30
# What NumPy and SciPy raise for damaged headers, besides `ValueError` and `OSError`.
DAMAGED = (
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    TypeError,
)
# Type of a compressed part, and bytes that are read and decompressed at a time.
COMPRESSED, READ, STEP = 15, 2**12, 2**20


def open_array(path: Path, dimensions: int, most: float = math.inf) -> NDArray[Any]:
    """Returns the array of an NPY file, or the one array with `dimensions` axes of a MATLAB file (up to version 7.2).

    An NPY file is memory-mapped. Raises `ValueError` without such an array of numbers, for more than one, and for
    a MATLAB array of more than `most` rows, which is not read.
    """
    if path.suffix.lower() == ".npy":
        try:
            # Unlike `np.load`, reads neither archives nor pickles, whatever the first bytes are.
            values = np.lib.format.open_memmap(path, mode="r")
        # NumPy parses a header as source code.
        except (TokenError, SyntaxError, *DAMAGED) as error:
            raise ValueError(f"'{path.name}' has a damaged header ({error})") from error
    else:
        values = _one_variable(path, dimensions, most)
    if values.ndim != dimensions or values.dtype.kind not in "iufb":
        raise ValueError(
            f"'{path.name}' has shape {values.shape} of {values.dtype}, needs {dimensions} axes of numbers"
        )
    return values


def _one_variable(path: Path, dimensions: int, most: float) -> NDArray[Any]:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    try:
        _check_size(path)
        known = {name: shape for name, shape, kind in whosmat(path) if kind not in ("char", "cell", "struct")}
        fitting = [name for name, shape in known.items() if len(shape) == dimensions]
        if len(fitting) != 1:
            held = ", ".join(f"{name} {shape}" for name, shape in known.items()) or "no arrays"
            raise ValueError(f"'{path.name}' needs one array of {dimensions} axes, it has {held}")
        if known[fitting[0]][0] > most:
            rows = known[fitting[0]][0]
            raise ValueError(
                f"'{path.name}' cannot be read as a MATLAB file of at most {most:.0f} rows (--max-seconds): it has"
                f" {rows}"
            )
        return loadmat(path, variable_names=fitting)[fitting[0]]
    # NotImplementedError: SciPy, for version 7.3, which is HDF5.
    except (MatReadError, zlib.error, *DAMAGED) as error:
        raise ValueError(f"'{path.name}' cannot be read as a MATLAB file up to version 7.2 ({error})") from error


def _check_size(path: Path) -> None:
    """Raises `ValueError` for a MATLAB file whose content takes more than `MOST_BYTES`.

    Files up to version 7.2 are a list of parts, most of them compressed, and a small part may hold gigabytes. They
    are decompressed here in small steps, and only counted.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(128)
        order: Literal["little", "big"] = "big" if head[126:128] == b"MI" else "little"
        if head[:4].count(0) or len(head) < 128:
            # Version 4 compresses nothing, but may announce any size.
            return
        while len(tag := file.read(8)) == 8:
            kind, length = (int.from_bytes(tag[place : place + 4], order) for place in (0, 4))
            if kind != COMPRESSED:
                file.seek(length, 1)
                continue
            unpack, left = zlib.decompressobj(), length
            while left and not unpack.eof and (part := file.read(min(left, READ))):
                left -= len(part)
                while part and not unpack.eof:
                    total += len(unpack.decompress(part, STEP))
                    part = unpack.unconsumed_tail
                    if total > MOST_BYTES:
                        raise ValueError(f"'{path.name}' holds more than {MOST_BYTES} bytes: store it as NPY")
            file.seek(left, 1)
