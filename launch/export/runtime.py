"""An exported graph, run: by onnxruntime or by torch, on NumPy arrays."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards.errors import RequestError

Arrays = dict[str, NDArray[Any]]
Runner = Callable[[Arrays], list[NDArray[np.float32]]]


def need_onnx() -> None:
    """Raises `RequestError` if the packages that write and run ONNX are not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise RequestError(f"ONNX needs {error.name}: pip install 'modalgate[export]'") from error


def open_onnx(path: Path, threads: int = 1) -> Runner:
    """Runs an ONNX file on the CPU with `threads` threads: inputs by name to outputs in the file's order."""
    session = open_session(path, threads)
    return lambda inputs: list(session.run(None, inputs))  # pyright: ignore[reportReturnType]


def open_session(path: Path, threads: int = 1) -> Any:
    """An onnxruntime session on the CPU with `threads` threads.

    Raises `ValueError` for a graph with tensors in other files: the sender of the graph may name any file.
    """
    import onnxruntime

    content = path.read_bytes()
    if has_other_files(memoryview(content)):
        raise ValueError("it holds tensors in other files: give one file that holds all")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # From bytes, so that the graph has no folder in which it could name files.
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


# Fields of the messages of an ONNX file that lead to tensors, by message: number of the field, message in it.
_FIELDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "tensor": {},
}
# Fields of a tensor that is stored elsewhere: the place, and that there is one.
_ELSEWHERE = (13, 14)


def has_other_files(content: memoryview) -> bool:
    """Whether an ONNX file names other files as the place of a tensor. Raises `ValueError` if it cannot be read."""
    left = [(content, "model")]
    while left:
        message, kind = left.pop()
        place = 0
        while place < len(message):
            key, place = _number(message, place)
            field, form = key >> 3, key & 7
            if kind == "tensor" and field in _ELSEWHERE:
                value = _number(message, place)[0]
                if value:
                    return True
            if form == 2:
                length, place = _number(message, place)
                if field in _FIELDS[kind]:
                    left.append((message[place : place + length], _FIELDS[kind][field]))
                place += length
            elif form == 0:
                place = _number(message, place)[1]
            elif form in (1, 5):
                place += 8 if form == 1 else 4
            else:
                raise ValueError("it is not a protocol buffer")
        if place > len(message):
            raise ValueError("it is cut short")
    return False


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """The variable-length number at `place`, and the place after it."""
    value = shift = 0
    while place < len(message) and shift < 70:
        byte = message[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place
    raise ValueError("it is cut short")


def open_program(path: Path) -> Runner:
    """Runs a file of `torch.export.save`; its inputs are given in their order."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    def run(inputs: Arrays) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            return [value.numpy() for value in module(*(torch.from_numpy(array) for array in inputs.values()))]

    return run
