"""`pack`, `probe` and `embed` as Python functions.

Names and arguments are those of the command line. The functions return what the commands print. An invalid request
raises `RequestError`, bad data raises `DataError`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...fusion.own_classes import allowing
from ...shards.media.pack_settings import PackSettings
from ...shards.media.region import plain_region
from ..jobs.first_checks import check_bundle, check_recordings, check_shards, plain_rates

if TYPE_CHECKING:
    from ...fusion.bundle.embedder import Embedding
    from ...shards.index.shard_summary import Summary
    from ...shards.index.table import Index
    from ...shards.packing.rejected import Rejected
    from ..jobs.probing import Probed

Place = str | Path


@dataclass(frozen=True)
class Packed:
    """A packed shard folder.

    index: of the clips.
    summary: counts, rates and sizes by modality, shard and label column.
    labelled: number of recordings with a label.
    unlabelled: number of recordings without a label.
    left_out: number of files that the label file does not name.
    rejected: recordings that cannot be read, with the reason.
    """

    index: "Index"
    summary: "Summary"
    labelled: int
    unlabelled: int
    left_out: int
    rejected: "list[Rejected]"


@dataclass(frozen=True)
class Embedded:
    """Features in memory.

    recordings: features, times and gate weights of each recording, by key (path in the folder, or key of the clip).
    rejected: the reason for each recording that cannot be read, by key.
    """

    recordings: "dict[str, Embedding]"
    rejected: dict[str, str]


def pack(
    source: Place,
    out: Place,
    *,
    labels: Place | None = None,
    modalities: Sequence[str] = (),
    size: int = PackSettings.size,
    fps: float = PackSettings.fps,
    sample_rate: int = PackSettings.sample_rate,
    flow_bound: float = PackSettings.flow_bound,
    clip_seconds: float = PackSettings.clip_seconds,
    silence_db: float = PackSettings.silence_db,
    rate: Mapping[str, float] | None = None,
    depth_scale: float = PackSettings.depth_scale,
    region: tuple[float, float, float, float] | None = None,
    declare: Sequence[str] = (),
    samples_per_shard: int = PackSettings.samples_per_shard,
    readers: int = PackSettings.readers,
    max_rejected: float = 0.05,
    max_pixels: int = PackSettings.max_pixels,
    max_seconds: float = PackSettings.max_seconds,
    seed: int = PackSettings.seed,
    labelled_only: bool = False,
    repack: bool = False,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
) -> Packed:
    """Packs a folder of media files into shards. Call it again to resume.

    source: folder of recordings, at any depth.
    out: folder for the shards: new, empty or interrupted.
    labels: CSV of label columns by file; default: SOURCE/labels.csv if it exists.
    modalities: modalities to store; default: all.
    size: short side of the pictures in pixels.
    fps: frames per second of every video stream.
    sample_rate: of the sound, in Hz.
    flow_bound: largest flow that is stored, in pixels per frame at the packed size.
    clip_seconds: longer files are cut into clips of this length.
    silence_db: a quieter sound track, in dB of full scale, counts as absent.
    rate: Hz by modality, for frame folders, arrays and signals.
    depth_scale: millimetres per level of a depth file.
    region: left, top, width, height of the part of every picture to keep, as shares of the picture.
    declare: modalities that are not built in, such as `thermal=video`, `mic2=audio`, `radar=signal:2@20`.
    samples_per_shard: clips per tar.
    readers: number of processes that will read at once.
    max_rejected: largest share of unreadable recordings; above it `DataError` is raised.
    max_pixels: larger pictures are rejected.
    max_seconds: longer recordings are rejected.
    seed: of the order of the clips in the shards.
    labelled_only: pack only recordings that the label file names.
    repack: replace finished shards, as after a change of the recordings.
    workers: number of processes; default: one per core.
    engine: `local`, or `ray` for a Ray cluster.

    Raises `RequestError` for a missing folder or an invalid setting, and `DataError` for too many unreadable
    recordings.
    """
    from ...shards.index.shard_summary import summarise
    from ...shards.modality import declare as declare_modality
    from ...shards.modality import plain_modality
    from ...shards.packing.pack import REJECTED_NAME
    from ...shards.packing.pack import pack as pack_folder
    from ...shards.packing.rejected import read_rejected
    from ...shards.packing.sources import find_recordings

    source, out, labels = Path(source), Path(out), None if labels is None else Path(labels)
    for text in declare:
        declare_modality(plain_modality(text))
    check_recordings(source, labels)
    settings = PackSettings(
        modalities=tuple(dict.fromkeys(modalities)),
        size=size,
        # 8 and 8.0 must be the same setting, or an interrupted packing could not be resumed.
        fps=float(fps),
        sample_rate=sample_rate,
        flow_bound=float(flow_bound),
        clip_seconds=float(clip_seconds),
        silence_db=float(silence_db),
        rates=plain_rates(rate),
        depth_scale=float(depth_scale),
        region=None if region is None else plain_region(region),
        samples_per_shard=samples_per_shard,
        readers=readers,
        max_pixels=max_pixels,
        max_seconds=float(max_seconds),
        seed=seed,
    )
    index = pack_folder(source, out, settings, labels, workers, max_rejected, None, engine, labelled_only, repack)
    found = find_recordings(source, labels, labelled_only)
    rejected = read_rejected(out / REJECTED_NAME)
    unlabelled = len(found.sources) - found.labelled
    return Packed(index, summarise(index), found.labelled, unlabelled, found.left_out, rejected)


def probe(
    encoder: Place,
    shards: Place | Sequence[Place],
    *,
    label: str = "label",
    multilabel: bool = False,
    labels: Sequence[str] = (),
    folds: int | None = None,
    group: str = "group",
    leave_one_out: bool = False,
    lists: Sequence[Place] = (),
    leaky: bool = False,
    train_split: str = "train",
    test_split: str = "test",
    views: int | None = None,
    solver: Literal["lbfgs", "sgd"] = "lbfgs",
    curve: bool = False,
    cache: Place | None = None,
    workers: int = 1,
    seed: int = 0,
    allow: Sequence[str] = (),
) -> "Probed":
    """Linear probe, kNN and retrieval on frozen features, compared with the same encoder untrained.

    encoder: a bundle, a run folder with a bundle, or `hf://OWNER/NAME`.
    shards: one or more shard folders with labelled clips.
    label: column of classes.
    multilabel: a clip may have several classes.
    labels: columns of 0 and 1, used instead of `label` with `multilabel`.
    folds: number of folds of grouped cross-validation; 0 uses the column `split`; default: `split` if it exists,
        else 5.
    group: column whose values must not be divided between folds.
    leave_one_out: one fold per value of `group`.
    lists: official lists of clips: train, test, train, test, ...
    leaky: allow a group in several folds (inflates scores).
    train_split: value of `split` to fit on.
    test_split: value of `split` to score on.
    views: windows averaged per clip.
    solver: of the linear probe; `sgd` for large data sets.
    curve: also score with 1 to 100 % of the labels, and few-shot.
    cache: folder of cached features; default: in the run of the encoder.
    workers: number of decoding processes.
    seed: of the folds and of the untrained encoder.
    allow: packages whose classes the bundle may import.

    Raises `RequestError` for a missing encoder, shard folder or column.
    """
    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.probing import probe as run_probe

    places = [str(place) for place in ([shards] if isinstance(shards, str | Path) else shards)]
    check_bundle(encoder)
    check_shards(places, None if labels else label)
    listed = tuple(str(path) for path in lists)
    plan = SplitPlan(folds, leave_one_out, listed, group, leaky, train_split, test_split, seed)
    with allowing(allow):
        return run_probe(
            Path(encoder),
            places,
            label=label,
            labels=list(labels),
            multilabel=multilabel,
            plan=plan,
            views=views,
            solver=solver,
            curve=curve,
            cache=None if cache is None else Path(cache),
            workers=workers,
            seed=seed,
            command=f"modalgate probe {encoder} {' '.join(places)}",
        )


def embed(
    encoder: Place,
    source: Place,
    *,
    hop: float | None = None,
    rate: Mapping[str, float] | None = None,
    batch_size: int = 8,
    allow: Sequence[str] = (),
) -> Embedded:
    """Features, times and gate weights of recordings, in memory. (`modalgate embed` writes them to a file.)

    encoder: a bundle, a run folder with a bundle, or `hf://OWNER/NAME`.
    source: a folder of media, a list (.txt, .csv), a media file, or shards.
    hop: seconds between pieces; default: as in evaluation.
    rate: Hz of frame folders, arrays and signals.
    batch_size: views per forward pass.
    allow: packages whose classes the bundle may import.

    A recording that cannot be read does not raise; it is listed in `rejected`. Raises `RequestError` for a missing
    encoder or source.
    """
    import torch

    from ...fusion.bundle.bundle import Bundle
    from ...fusion.bundle.embedder import load_encoder
    from ...shards.index.unreadable import UNREADABLE, reason_of
    from ...shards.live.inputs import find_material
    from ..jobs.building import check_shards_fit
    from ..runs.bundles import find_bundle

    check_bundle(encoder)
    model = load_encoder(find_bundle(Path(encoder)), allow).to("cuda" if torch.cuda.is_available() else "cpu")
    material = find_material(str(source), plain_rates(rate))
    if material.index is not None:
        check_shards_fit(Bundle(model.backbone, model.spec, model.segments), material.index)
    cut = material.cutter(model.spec, model.modalities, model.application, hop)
    found: dict[str, Embedding] = {}
    rejected: dict[str, str] = {}
    for item in material.items:
        if item.problem:
            rejected[item.key] = item.problem
            continue
        try:
            found[item.key] = model.embed_pieces(cut(item), batch_size)
        except UNREADABLE as error:
            rejected[item.key] = reason_of(error)
    return Embedded(found, rejected)
