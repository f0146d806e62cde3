"""An exported ONNX classifier as a scorer of windows; torch is not imported."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...shards.clip_spec import plain_clip_spec
from ...shards.clips.application import plain_application
from ...shards.clips.piece import Window
from ...shards.errors import DataError, RequestError

METADATA = "modalgate.json"
# Of one window of one modality. The sender of a file may be unknown.
MOST_VALUES = 2**28


class OnnxScorer:
    """Scores windows with a file from `modalgate export --format onnx`, which holds all settings.

    Raises `RequestError` if onnxruntime is missing, the file comes from another program or has no classes, and
    `DataError` if it is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            from ..export.runtime import open_session

            self.session = open_session(path, _threads())
        except ImportError as error:
            raise RequestError(f"'{path}' needs {error.name}: pip install 'modalgate[export]'") from error
        except Exception as error:
            # The exceptions of onnxruntime have no other base class.
            reason = str(error).splitlines()[0]
            raise DataError(f"'{path}' is not a whole ONNX file ({reason}): export it again") from error
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA)
        if text is None:
            raise RequestError(
                f"'{path}' does not describe its preprocessing: give a file written by `modalgate export`"
            )
        try:
            facts = json.loads(text)
            self.modalities: tuple[str, ...] = tuple(facts["modalities"])
            self.classes: tuple[str, ...] = tuple(facts["classes"])
            self.positive: str | None = facts["positive"]
            self.metrics: dict[str, float] = facts.get("metrics") or {}
            self.inputs: dict[str, Any] = {name: _checked_input(facts["inputs"][name]) for name in self.modalities}
            self.multilabel: bool = facts.get("multilabel", False)
            self.spec = plain_clip_spec(facts["clip"])
            self.application = plain_application(facts.get("application"), self.spec, 1)
        except (ValueError, KeyError, TypeError, AttributeError, RequestError, RecursionError) as error:
            raise DataError(f"'{path}' is damaged ({error!r:.400}): export it again") from error
        if not self.classes:
            raise RequestError(f"'{path}' is an encoder without classes: export it without --encoder-only")

    def score(self, windows: list[Window]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Probabilities (n, C) and gate weights (n, M)."""
        present = np.array([[name in window.streams for name in self.modalities] for window in windows])
        inputs: dict[str, NDArray[Any]] = {"present": present}
        for name, entry in self.inputs.items():
            _, *shape = entry["shape"]
            rows = np.zeros((len(windows), *shape), entry["type"])
            for number, window in enumerate(windows):
                if name in window.streams:
                    rows[number] = window.streams[name]
            inputs[name] = rows
        probabilities, weights = self.session.run(["probabilities", "weights"], inputs)
        return probabilities, weights


def _checked_input(entry: dict[str, Any]) -> dict[str, Any]:
    """An input of the graph. Raises `ValueError` for a type or a size that no window has."""
    _, *shape = entry["shape"]
    if entry["type"] not in ("uint8", "uint16", "float32"):
        raise ValueError(f"an input is of type {entry['type']!r}")
    if not all(type(length) is int and length > 0 for length in shape) or math.prod(shape) > MOST_VALUES:
        raise ValueError(f"an input has shape {entry['shape']!r}")
    return entry


def _threads() -> int:
    """As torch does: the value of OMP_NUM_THREADS, else the cores that this process may use."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
