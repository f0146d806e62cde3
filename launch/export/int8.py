"""Dynamic int8 quantisation of an ONNX graph, and its cost."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...fusion.bundle.bundle import Bundle
from ...fusion.classifier import Classifier
from ...shards.index.labels import label_values
from ...shards.index.table import Index
from ...shards.index.whole_file import whole_file
from .graph_export import METADATA, quiet
from .graph_files import int8_path
from .parity import Windows, clip_windows, noise_windows
from .runtime import Runner, need_onnx, open_onnx

# Convolutions stay fp32: their integer kernel is slower on most CPUs.
OPERATORS = ["MatMul", "Gemm"]
NOISE = "noise"


@dataclass(frozen=True)
class Cost:
    """fp32 and int8 compared: bytes; milliseconds per window on one thread; `difference`: largest of any output;
    `cosine` of the embeddings, mean over windows.

    Of a classifier: `agreement`, the share of windows with the same first class (or the same set of classes), and the
    `accuracy` of both on the `labelled` windows with a known label. Measured on `windows` of `source`: the shards'
    clips, or noise.
    """

    path: Path
    source: str
    windows: int
    bytes: tuple[int, int]
    milliseconds: tuple[float, float]
    difference: float
    cosine: float
    agreement: float | None = None
    accuracy: tuple[float, float] | None = None
    labelled: int = 0

    def rows(self) -> list[tuple[str, object, object]]:
        """(figure, fp32, int8) for a table."""
        rows: list[tuple[str, object, object]] = [
            ("bytes", *self.bytes),
            ("milliseconds per window, one thread", *self.milliseconds),
        ]
        if self.accuracy is not None:
            rows.append((f"accuracy on {self.labelled} labelled windows", *self.accuracy))
        if self.agreement is not None:
            rows.append(("same first class, share of windows", None, self.agreement))
        return [
            *rows,
            ("cosine of embeddings, mean", None, self.cosine),
            ("largest difference", None, self.difference),
        ]


def quantise(bundle: Bundle, path: Path, index: Index | None = None, label: str | None = None) -> Cost:
    """Writes PATH with `-int8` in its name next to the graph at `path`, and compares the two.

    Weights of linear layers become int8; their inputs are quantised while running. Raises `RequestError` if packages
    are missing or the shards do not fit the model.
    """
    need_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    target = int8_path(path)
    with whole_file(target, keep_suffix=True) as partial:
        model = onnx.load(str(path))
        facts = {entry.key: entry.value for entry in model.metadata_props}
        # Stored shapes of fp32 tensors contradict those of the quantiser.
        del model.graph.value_info[:]
        with quiet():
            quantize_dynamic(model, str(partial), op_types_to_quantize=OPERATORS, weight_type=QuantType.QInt8)
        written = onnx.load(str(partial))
        onnx.helper.set_model_props(written, {METADATA: facts[METADATA]})
        onnx.save(written, str(partial))
    batches = list(noise_windows(bundle) if index is None else clip_windows(bundle, index, label))
    source = NOISE if index is None else str(index.folder)
    return measure(bundle, path, target, batches, source)


def measure(
    bundle: Bundle,
    whole: Path,
    small: Path,
    batches: list[Windows],
    source: str,
    clock: Callable[[], float] = time.perf_counter,
) -> Cost:
    """Compares both graphs on the same windows."""
    runs = (open_onnx(whole), open_onnx(small))
    outputs = [[run(windows.arrays()) for windows in batches] for run in runs]
    difference = max(
        float(np.abs(mine - theirs).max())
        for pair in zip(*outputs, strict=True)
        for mine, theirs in zip(*pair, strict=True)
    )
    rows = sum(len(windows.present) for windows in batches)
    embeddings = [np.concatenate([found[-2] for found in one]) for one in outputs]
    lengths = [np.linalg.norm(one, axis=1) for one in embeddings]
    products = (embeddings[0] * embeddings[1]).sum(axis=1) / np.maximum(lengths[0] * lengths[1], 1e-12)
    agreement, accuracy, labelled = None, None, 0
    # Probabilities are the first output of a classifier.
    if len(outputs[0][0]) == 3:
        found = [np.concatenate([output[0] for output in one]) for one in outputs]
        several = isinstance(bundle.model, Classifier) and bundle.model.multilabel
        guesses = [chances >= 0.5 if several else chances.argmax(axis=1, keepdims=True) for chances in found]
        agreement = float((guesses[0] == guesses[1]).all(axis=1).mean())
        truth = [label for windows in batches for label in windows.labels or []]
        if truth:
            known, kept = _truth(bundle, truth)
            first, second = (
                float((guess[kept] == known[kept]).all(axis=1).mean()) if kept.any() else 0.0 for guess in guesses
            )
            accuracy, labelled = (first, second) if kept.any() else None, int(kept.sum())
    return Cost(
        small,
        source,
        rows,
        (whole.stat().st_size, small.stat().st_size),
        (_milliseconds(runs[0], batches, clock), _milliseconds(runs[1], batches, clock)),
        difference,
        float(products.mean()),
        agreement,
        accuracy,
        labelled,
    )


def _truth(bundle: Bundle, labels: list[str]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The right answers: class numbers (n, 1), or of several classes whether each is present (n, C); and which
    labels (n,) the model knows.
    """
    classes = list(getattr(bundle.model, "classes", ()))
    if isinstance(bundle.model, Classifier) and bundle.model.multilabel:
        held = [label_values(label) for label in labels]
        return np.array([[name in values for name in classes] for values in held]), np.array(labels) != ""
    known = np.array([[classes.index(label) if label in classes else -1] for label in labels])
    return known, known[:, 0] >= 0


def _milliseconds(run: Runner, batches: list[Windows], clock: Callable[[], float]) -> float:
    """Milliseconds per window, the fastest of three passes: other processes can only slow a pass down."""
    rows = sum(len(windows.present) for windows in batches)
    inputs = [windows.arrays() for windows in batches]
    seconds = []
    for _ in range(3):
        begun = clock()
        for arrays in inputs:
            run(arrays)
        seconds.append(clock() - begun)
    return min(seconds) / rows * 1000
