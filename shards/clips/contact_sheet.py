"""Contact sheets: some clips of a shard folder in one picture, all streams of a clip on its time axis."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.signal import spectrogram

from ..errors import RequestError
from ..index.location import FolderReader
from ..index.members import stored_rate, stored_signal
from ..index.table import Index, Sample, load_index
from ..media.flow import colour_flow, dequantise_flow
from ..media.region import region_text
from ..modality import Modality, modality
from .decode import decode_frames, decode_sound
from .windows import frame_times

FRAMES = 8
# In inches: a picture of a strip, a row of sound or signal, an absent row, the text next to them, title and gap.
PICTURE, WAVE, ABSENT, TEXT, TITLE, GAP = 1.15, 0.85, 0.3, 2.3, 0.45, 0.35
# In inches: the strip of a single clip, and the names of its streams next to it.
STRIP, MARGIN = 3.6, 0.42


def draw_contact_sheet(folder: Path, png: Path, count: int = 8) -> None:
    """Draws `count` clips, evenly spread over the shards, to `png`.

    Each clip is a block of rows on one time axis. RGB, flow and depth are central squares at 8 times; in flow, hue is
    direction and white is no motion. Sound is a spectrogram. Signals are curves, standardised by the statistics of
    the shards. A missing stream is marked absent. Raises `RequestError` if there is no index or the picture cannot be
    written.
    """
    index = load_index(folder)
    places = np.unique(np.linspace(0, len(index.samples) - 1, min(count, len(index.samples))).round().astype(int))
    samples = [index.samples[place] for place in places]
    names = [name for name in index.settings.modalities if name in index.modalities]
    heights = [[_row_height(sample, modality(name)) for name in names] for sample in samples]
    blocks = [max(sum(rows), 1.25) + GAP for rows in heights]
    width, height = TEXT + FRAMES * PICTURE + 0.2, sum(blocks) + TITLE
    figure = Figure(figsize=(width, height), dpi=110)
    figure.suptitle(_title(index, len(samples)), fontsize=9, y=1 - 0.15 / height, x=0.01, ha="left", va="top")
    top = height - TITLE
    for sample, rows, block in zip(samples, heights, blocks, strict=True):
        _text(figure, sample, names, (width, height), top)
        lower = top
        for name, tall in zip(names, rows, strict=True):
            lower -= tall
            box = (TEXT / width, (lower + 0.03) / height, FRAMES * PICTURE / width, (tall - 0.06) / height)
            _draw(figure.add_axes(box), index, sample, modality(name))
        top -= block
    try:
        figure.savefig(png, format="png")
    except OSError as error:
        raise RequestError(f"cannot write '{png}' ({error.strerror}): give a file in an existing folder") from error


def draw_clip(index: Index, sample: Sample, png: Path, frames: int = 6) -> None:
    """Draws one clip to `png`, `frames` pictures a row, as wide as a phone and without text at the side."""
    entries = [modality(name) for name in index.settings.modalities if name in index.modalities]
    side = STRIP / frames
    heights = [side if row == PICTURE else row * 0.8 for row in (_row_height(sample, entry) for entry in entries)]
    width, height = STRIP + MARGIN, sum(heights) + 0.15
    figure = Figure(figsize=(width, height), dpi=150)
    lower = height
    for entry, tall in zip(entries, heights, strict=True):
        lower -= tall
        box = (MARGIN / width, (lower + 0.03) / height, STRIP / width, (tall - 0.06) / height)
        _draw(figure.add_axes(box), index, sample, entry, frames)
    figure.savefig(png, format="png")


def _row_height(sample: Sample, entry: Modality) -> float:
    if entry.suffix not in sample.members:
        return ABSENT
    return PICTURE if entry.kind == "video" else WAVE


def _title(index: Index, count: int) -> str:
    settings = index.settings
    part = "" if settings.region is None else f" of region {region_text(settings.region)}"
    return (
        f"{index.folder.name}: {count} of {len(index.samples)} clips   "
        f"{settings.size} px short side, {settings.fps:g} frames/s, central squares{part}"
    )


def _text(figure: Figure, sample: Sample, names: list[str], size: tuple[float, float], top: float) -> None:
    """Writes key, labels and present streams left of a clip's block, whose upper edge is `top` inches."""
    labels = [f"{column}: {value}" for column, value in sample.labels.items() if value]
    marks = [f"{'●' if modality(name).suffix in sample.members else '○'} {name}" for name in names]
    lines = [f"{sample.duration:.2f} s   {sample.shard}", *labels[:6], "", "   ".join(marks)]
    if len(marks) > 3:
        lines[-1:] = ["   ".join(marks[:3]), "   ".join(marks[3:])]
    width, height = size
    figure.text(0.1 / width, (top - 0.05) / height, _shorten(sample.key), fontsize=9, va="top", weight="bold")
    text = "\n".join(_shorten(line, 38) for line in lines)
    figure.text(0.1 / width, (top - 0.26) / height, text, fontsize=7, va="top", linespacing=1.35)


def _shorten(text: str, limit: int = 28) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _draw(axes: Axes, index: Index, sample: Sample, entry: Modality, frames: int = FRAMES) -> None:
    axes.set_xlim(0, sample.duration)
    axes.set_yticks([])
    axes.tick_params(labelsize=5, length=2, pad=1)
    axes.set_ylabel(entry.name, fontsize=7, labelpad=2)
    if entry.kind == "video":
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
    if entry.suffix not in sample.members:
        axes.set_facecolor("#eeeeee")
        axes.set_xticks([])
        axes.text(0.5, 0.5, "absent", transform=axes.transAxes, ha="center", va="center", fontsize=7, color="#777777")
        axes.set_ylabel(entry.name, fontsize=7, labelpad=2, rotation=0, ha="right", va="center")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return
    data = read_member(index, sample, entry.suffix)
    if entry.kind == "video":
        strip = _strip(data, sample.duration, index, entry, frames)
        axes.imshow(strip, extent=(0, sample.duration, 0, 1), aspect="auto", interpolation="nearest")
    elif entry.kind == "audio":
        _draw_sound(axes, data, sample.duration, index.settings.sample_rate)
    else:
        rate = stored_rate(read_member(index, sample, "json"), entry.name)
        _draw_signal(axes, data, rate, index, entry)


def read_member(index: Index, sample: Sample, suffix: str) -> bytes:
    """Reads the bytes of one member of a sample."""
    with FolderReader(index.folder) as files:
        return files.read(sample.shard, *sample.members[suffix])


def _strip(data: bytes, duration: float, index: Index, entry: Modality, count: int) -> NDArray[np.uint8]:
    """Returns `count` central squares side by side, with a gray line between them."""
    times = frame_times(np.zeros(1), duration, count)[0]
    size = min(index.settings.size, 160)
    frames = decode_frames(data, times, index.settings.fps, entry, size, (0.5, 0.5))
    if entry.flow_of:
        flow = dequantise_flow(frames, index.settings.flow_bound)
        # One scale per clip: noise in a still moment must not look like motion.
        full = max(float(np.percentile(np.hypot(flow[:, 0], flow[:, 1]), 99)), 0.5)
        pictures = [colour_flow(field, full) for field in flow]
    elif entry.channels == 3:
        pictures = list(frames.transpose(0, 2, 3, 1))
    else:
        pictures = list(_colour_measured(frames[:, 0]))
    gap = np.full((size, max(size // 56, 1), 3), 190, np.uint8)
    return np.concatenate([part for picture in pictures for part in (picture, gap)], axis=1)


def _colour_measured(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns measurements (T, H, W) as RGB, from dark to bright over the clip's range; 0 (not measured) is black."""
    measured = values[values > 0]
    low, high = np.percentile(measured, (1, 99)) if measured.size else (0.0, 1.0)
    # Near is bright, and the farthest level still differs from unmeasured.
    level = 1 - 0.85 * np.clip((values - low) / max(high - low, 1.0), 0, 1)
    coloured = (np.asarray(colormaps["magma"](level))[..., :3] * 255).astype(np.uint8)
    coloured[values == 0] = 0
    return coloured


def _draw_sound(axes: Axes, data: bytes, duration: float, rate: int) -> None:
    """Draws level over time and frequency, from 60 dB below the clip's maximum."""
    sound = decode_sound(data, np.zeros(1), duration, rate)[0]
    window = min(rate // 40, len(sound))
    _, _, power = spectrogram(sound, rate, nperseg=window, noverlap=window * 3 // 4)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    extent = (0, duration, 0, rate / 2000)
    top = float(level.max())
    axes.imshow(level, extent=extent, origin="lower", aspect="auto", cmap="magma", vmin=top - 60, vmax=top)
    axes.set_ylim(0, rate / 2000)
    axes.set_ylabel("audio, kHz", fontsize=7, labelpad=2)
    axes.set_yticks([0, round(rate / 4000)])


def _draw_signal(axes: Axes, data: bytes, rate: float, index: Index, entry: Modality) -> None:
    signal = stored_signal(data, entry)
    known = index.statistics[entry.name]
    scaled = (signal - np.array(known.mean)) / np.maximum(np.array(known.std), 1e-6)
    times = np.arange(len(signal)) / rate
    for number, channel in enumerate(scaled.T):
        axes.plot(times, channel, linewidth=0.7, color=colormaps["tab10"](number % 10))
    axes.set_ylabel(f"{entry.name}, σ", fontsize=7, labelpad=2)
    axes.set_ylim(-4, 4)
