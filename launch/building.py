"""From a config to the things it names: what to cut, how to prepare it, and the model."""

from pathlib import Path
from typing import Any

from ..fusion.backbone import select_modalities
from ..fusion.bundle import Bundle
from ..shards.errors import RequestError
from ..shards.index import Index
from ..shards.stream import ClipRequest, ClipStream
from ..shards.transforms import ClipSpec
from .device import ranks
from .schema import Config, DataConfig


def clip_request(data: DataConfig, index: Index) -> ClipRequest:
    """What to cut from each clip; `RequestError` for a modality the shards do not have."""
    modalities = select_modalities(index.modalities, data.modalities)
    return ClipRequest(modalities, data.segments, data.seconds, data.frames, data.size or index.settings.size)


def request_of(bundle: Bundle, segments: int | None = None) -> ClipRequest:
    """The same, as a bundle's model was trained with."""
    spec = bundle.spec
    return ClipRequest(bundle.backbone.modalities, segments or bundle.segments, spec.seconds, spec.frames, spec.size)


def clip_spec(request: ClipRequest, index: Index) -> ClipSpec:
    """How segments cut by `request` from these shards are prepared."""
    settings = index.settings
    return ClipSpec(
        request.seconds,
        request.frames,
        request.size,
        settings.size,
        settings.fps,
        settings.sample_rate,
        settings.flow_bound,
        {name: index.statistics[name] for name in request.modalities},
    )


def check_shards_fit(bundle: Bundle, index: Index) -> None:
    """`RequestError` where shards were packed unlike those the bundle's model was trained on."""
    spec, settings = bundle.spec, index.settings
    for name, trained, packed in (
        ("short side", spec.short_side, settings.size),
        ("frames per second", spec.fps, settings.fps),
        ("sample rate", spec.sample_rate, settings.sample_rate),
        ("flow bound", spec.flow_bound, settings.flow_bound),
    ):
        if trained != packed:
            raise RequestError(
                f"'{index.folder}' is packed with {name} {packed:g}, the encoder was trained with {trained:g}: "
                "pack the source again with that setting"
            )


def clip_stream(index: Index, request: ClipRequest, config: DataConfig, seed: int, **labels: Any) -> ClipStream:
    """The stream of this process: its share of every global batch, `batch_size` clips over all ranks."""
    rank, world = ranks()
    if config.batch_size % world:
        raise RequestError(f"data.batch_size {config.batch_size} does not divide over {world} processes")
    return ClipStream(
        index,
        request,
        config.batch_size // world,
        seed=seed,
        rank=rank,
        world=world,
        workers=config.workers,
        **labels,
    )


def run_folder(config: Config) -> Path:
    """OUT/NAME."""
    return Path(config.out) / config.name
