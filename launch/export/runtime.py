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
    """An onnxruntime session on the CPU with `threads` threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


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
