"""Class scores and gate weights over the time of one recording."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..fusion.bundle import Bundle
from ..fusion.classifier import Classifier
from ..shards.batch import Batch, Clip, stack
from ..shards.decode import fit_square, place_square
from ..shards.errors import RequestError
from ..shards.flow import quantise_flow
from ..shards.index import PackSettings
from ..shards.modality import modality
from ..shards.recording import Recording, read_recording
from ..shards.transforms import Preparation
from ..shards.windows import frame_times


@dataclass(frozen=True)
class Prediction:
    """One window: `start`, `end` in seconds; `probabilities` by class; `gates` by modality; which were `present`."""

    start: float
    end: float
    probabilities: dict[str, float]
    gates: dict[str, float]
    present: list[str]


@torch.no_grad()
def predict(
    bundle: Bundle, files: dict[str, Path], hop: float | None = None, batch_size: int = 16
) -> Iterator[Prediction]:
    """Windows every `hop` seconds (half a window by default) over one recording, decoded and prepared as in packing.

    `files`: `video`, and other modalities' files by name. Raises `RequestError` where the bundle is no classifier.
    """
    model = bundle.model
    if not isinstance(model, Classifier):
        raise RequestError("this bundle is an encoder without classes: give one that `modalgate finetune` made")
    spec = bundle.spec
    preparation = Preparation(spec)
    settings = PackSettings(
        modalities=model.backbone.modalities,
        size=spec.short_side,
        fps=spec.fps,
        flow_bound=spec.flow_bound,
        sample_rate=spec.sample_rate,
    )
    step = hop or spec.seconds / 2
    for recording in read_recording(files, settings):
        last = max(recording.duration - spec.seconds, 0.0)
        starts = np.arange(0.0, last + 1e-6, step)
        for first in range(0, len(starts), batch_size):
            batch = _cut_windows(recording, starts[first : first + batch_size], bundle)
            scored = model(preparation(batch), batch.present, batch.start)
            probabilities = torch.softmax(scored.logits[:, 0], dim=-1)
            for row, start in enumerate(batch.start[:, 0].tolist()):
                yield Prediction(
                    round(recording.start + start, 3),
                    round(recording.start + min(start + spec.seconds, recording.duration), 3),
                    dict(zip(model.classes, probabilities[row].tolist(), strict=True)),
                    dict(zip(model.backbone.modalities, scored.encoded.weights[row, 0].tolist(), strict=True)),
                    [name for name in model.backbone.modalities if bool(batch.present[name][row, 0])],
                )


def _cut_windows(recording: Recording, starts: NDArray[np.float64], bundle: Bundle) -> Batch:
    """Each window as a clip of one segment."""
    spec = bundle.spec
    clips = []
    for start in starts:
        streams = {}
        for name, values in recording.streams.items():
            rate = {"audio": spec.sample_rate}.get(name, recording.rates.get(name, spec.fps))
            streams[name] = torch.from_numpy(_cut(name, values, np.array([start]), rate, bundle))
        present = {name: name in streams for name in bundle.backbone.modalities}
        clips.append(Clip(streams, present, "", torch.tensor([start]).float(), None))
    return stack(clips, seed=0)


def _cut(name: str, values: NDArray[Any], start: NDArray[np.float64], rate: float, bundle: Bundle) -> NDArray[Any]:
    """One window with a leading K of 1, in the stored form that `Preparation` takes."""
    spec, entry = bundle.spec, modality(name)
    if entry.kind != "video":
        count = round(spec.seconds * rate)
        first = round(float(start[0]) * rate)
        window = np.zeros((1, count, *values.shape[1:]), np.float32)
        piece = values[first : first + count]
        window[0, : len(piece)] = piece
        return window
    numbers = np.floor(frame_times(start, spec.seconds, spec.frames) * rate + 1e-6).astype(int)
    frames = values[np.clip(numbers[0], 0, len(values) - 1)]
    if name == "flow":
        frames = quantise_flow(frames, spec.flow_bound)
    elif frames.ndim == 4:
        frames = frames.transpose(0, 3, 1, 2)
    else:
        frames = frames[:, None]
    height, width = frames.shape[2:]
    side, top, left = place_square(height, width, (0.5, 0.5), entry)
    squares = np.empty((*frames.shape[:2], spec.size, spec.size), frames.dtype)
    for frame, square in zip(frames, squares, strict=True):
        fit_square(frame[:, top : top + side, left : left + side], square)
    return squares[None]
