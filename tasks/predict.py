"""Class scores and gate weights over the time of one recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..fusion.bundle import Bundle
from ..fusion.classifier import Classifier
from ..shards.errors import RequestError
from ..shards.sliding import Window, batch_windows, slide
from ..shards.transforms import Preparation


@dataclass(frozen=True)
class Prediction:
    """One window: `start`, `end` in seconds; `probabilities` by class; `gates` by modality; which were `present`."""

    start: float
    end: float
    probabilities: dict[str, float]
    gates: dict[str, float]
    present: list[str]


def predict(
    bundle: Bundle, files: dict[str, Path], hop: float | None = None, batch_size: int = 16
) -> Iterator[Prediction]:
    """Windows every `hop` seconds (half a window by default) over a recording of any length, prepared as in packing.

    `files`: `video`, and other modalities' files by name. Every frame is decoded once. What is read before a fault
    is predicted before it is raised. Raises `RequestError` where the bundle is no classifier, `ValueError` and what
    decoding raises where the recording cannot be read.
    """
    model = bundle.model
    if not isinstance(model, Classifier):
        raise RequestError("this bundle is an encoder without classes: give one that `modalgate finetune` made")
    preparation = Preparation(bundle.spec)
    held: list[Window] = []
    try:
        for window in slide(files, bundle.spec, model.backbone.modalities, hop):
            held.append(window)
            if len(held) == batch_size:
                yield from _score(model, preparation, held)
                held = []
    except Exception:
        yield from _score(model, preparation, held)
        raise
    yield from _score(model, preparation, held)


@torch.no_grad()
def _score(model: Classifier, preparation: Preparation, windows: list[Window]) -> list[Prediction]:
    if not windows:
        return []
    modalities = model.backbone.modalities
    batch = batch_windows(windows, modalities)
    scored = model(preparation(batch), batch.present, batch.start)
    probabilities = model.probabilities(scored.logits[:, 0]).tolist()
    weights = scored.encoded.weights[:, 0].tolist()
    return [
        Prediction(
            round(window.start, 3),
            round(window.end, 3),
            dict(zip(model.classes, chances, strict=True)),
            dict(zip(modalities, gates, strict=True)),
            list(window.streams),
        )
        for window, chances, gates in zip(windows, probabilities, weights, strict=True)
    ]
