"""What reading and decoding a damaged file raises, and its reason as text."""

import csv
import zlib

import cv2
from av.error import ArgumentError, FFmpegError

from ..errors import DataError, raise_if_exhausted

# What readers raise for a damaged or foreign file or member.
# IndexError: PyAV, for a container without the requested stream.
# NotImplementedError: SciPy, for a MATLAB file in HDF5 format.
# DataError: a name in an index that leads out of its folder.
UNREADABLE = (
    FFmpegError,
    OSError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    zlib.error,
    csv.Error,
    cv2.error,
    DataError,
)


def reason_of(error: BaseException) -> str:
    """Returns one of `UNREADABLE` as one line of text.

    Raises `RequestError` if not the file is at fault, but this process, which has too many files open.
    """
    raise_if_exhausted(error)
    text = str(getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    if isinstance(error, ArgumentError):
        # FFmpeg's answer to pictures beyond `allow_pixels`.
        return f"its pictures are damaged or too large ({text})"
    return f"not enough memory ({text})" if isinstance(error, MemoryError) else text
