"""Write a world: clips of ImpactWorld as ordinary media files, with labels and exact ceilings."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RequestError
from ..media.container_io import write_video
from .ceilings import ceilings
from .factors import Law, ordered, preset_named
from .render import DEPTH_MILLIMETRES, FPS, FRAMES, SAMPLE_RATE, SIZE, render
from .scene import Scene, draw_scene, scene_to_json

FORMAT_VERSION = 1
SPLITS = {"pretrain": 4000, "train": 2400, "val": 600, "test": 1200}
# Clips per task of a worker: enough to outweigh the message, few enough for a smooth progress bar.
_ERRAND = 8


def split_ranges(clips: int, shares: Mapping[str, int] = SPLITS) -> dict[str, range]:
    """Returns the clip numbers of each split, in proportion to `shares`.

    Raises `RequestError` if a split might be empty.

    >>> split_ranges(100, {"train": 3, "test": 1})
    {'train': range(0, 75), 'test': range(75, 100)}
    """
    whole = sum(shares.values())
    if clips < (least := -(-whole // min(shares.values()))):
        raise RequestError(f"{clips} clips are too few to fill {len(shares)} splits: give {least} or more")
    bounds = [0, *(int(clips * edge / whole + 0.5) for edge in np.cumsum(list(shares.values())))]
    return {name: range(bounds[i], bounds[i + 1]) for i, name in enumerate(shares)}


def write_world(
    out: Path,
    preset: str,
    clips: int,
    seed: int = 0,
    *,
    rho: float = 0.0,
    sensor_flow: bool = False,
    twin: str = "",
    shares: Mapping[str, int] = SPLITS,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Writes `clips` clips of `preset` into the folder `out`. Returns the content of `world.json`.

    - `rho`: probability that a stream shows another class's symbol.
    - `sensor_flow`: writes flow as a separate sensor. Without it, the ceilings count flow as derived from rgb.
    - `twin`: a cue to remove, one of `TWINS`. The ceilings stay those of the complete world.
    - `shares`: of the clips in each split.
    - `workers`: processes. Default: one per core.
    - `progress`: called with (clips written, all clips).

    The folder contains:

    - `video/ID.mkv`: 48 x 48 pixels, 16 fps, 3 s, lossless H.264 (`qp` 0, yuv444p), with 8 kHz PCM sound.
    - `depth/ID.mkv`: FFV1 `gray16le`, millimetres.
    - `flow/ID.npy` with `sensor_flow`: float16 (T, 2, H, W) pixel/frame.
    - `labels.csv`: paths relative to `out`, label, violence (`violent` or `calm`) if the preset has it, split, group,
      the label's bits, z and q.
    - `scenes.jsonl`: one scene per line, from which each clip can be rendered again to the last bit.
    - `world.json`: preset, seed, law, splits, and the ceilings of every subset of streams.

    The folder appears only when it is complete. Raises `RequestError` if `out` is not empty, if the preset is
    unknown, and if a number is out of range.
    """
    chosen, law = preset_named(preset), Law(rho=rho)
    if not 0 <= seed < 2**63:
        raise RequestError(f"seed is {seed}: give a whole number from 0 to 2**63 - 1")
    if workers is not None and workers < 1:
        raise RequestError(f"workers is {workers}: give 1 or more")
    splits = split_ranges(clips, shares)
    streams = ordered({*chosen.streams, "flow"} if sensor_flow else set(chosen.streams) - {"flow"})
    scenes = [
        draw_scene(preset, seed, clip, law, streams=streams, graded=name == "pretrain", twin=twin)
        for name, ids in splits.items()
        for clip in ids
    ]
    flow = "sensor" if sensor_flow else "derived"
    facts = {
        "version": FORMAT_VERSION,
        "preset": preset,
        "seed": seed,
        "clips": clips,
        "classes": chosen.classes,
        "bits": chosen.bits,
        "streams": streams,
        "flow": flow,
        "law": asdict(law),
        "tell": "quality",
        "twin": twin,
        "splits": {name: [ids.start, ids.stop] for name, ids in splits.items()},
        "size": SIZE,
        "fps": FPS,
        "seconds": FRAMES / FPS,
        "sample_rate": SAMPLE_RATE,
        "depth_millimetres": DEPTH_MILLIMETRES,
        "ceilings": ceilings(preset, law, flow=flow, streams=streams),
    }
    with _whole_folder(out) as folder:
        for kind in ("video", *(stream for stream in streams if stream in ("depth", "flow"))):
            (folder / kind).mkdir()
        errands = [scenes[first : first + _ERRAND] for first in range(0, clips, _ERRAND)]
        done = 0
        # Closed at once if `progress` raises: no process may still write when the folder is removed.
        with closing(_each(partial(_write_clips, folder), errands, workers or _cores())) as batches:
            for written in batches:
                done += written
                if progress is not None:
                    progress(done, clips)
        _write_labels(folder / "labels.csv", scenes, splits)
        with (folder / "scenes.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(scene_to_json(scene) + "\n" for scene in scenes)
        (folder / "world.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return json.loads(json.dumps(facts))


def clip_key(clip: int) -> str:
    """Returns the name of a clip's files.

    >>> clip_key(7)
    '000007'
    """
    return f"{clip:06d}"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """Yields a sibling folder to write into. It is renamed to `out` at the end, and removed after an error."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RequestError(f"'{out}' already holds something: give a folder that is empty or does not exist")
    folder = out.with_name(f".{out.name}.partial")
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise RequestError(f"cannot write to '{out}' ({error.strerror}): give a folder that can be made") from error
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _each(task: Callable[[list[Scene]], int], errands: list[list[Scene]], workers: int) -> Generator[int, None, None]:
    """Yields the results of `task` in order of completion. One worker runs in this process."""
    if workers == 1:
        yield from map(task, errands)
        return
    # A forked child may inherit locks held by threads of torch or FFmpeg; a spawned one starts clean. Ctrl-C reaches
    # every process, and only this one handles it.
    pool = ProcessPoolExecutor(
        min(workers, len(errands)),
        multiprocessing.get_context("spawn"),
        initializer=signal.signal,
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        for future in as_completed([pool.submit(task, errand) for errand in errands]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _write_clips(folder: Path, scenes: Iterable[Scene]) -> int:
    """Renders `scenes` into media files. Returns their number."""
    count = 0
    for scene in scenes:
        clip, key = render(scene), clip_key(scene.clip)
        if clip.rgb is not None:
            write_video(
                folder / "video" / f"{key}.mkv",
                clip.rgb,
                FPS,
                pixel_format="yuv444p",
                options={"qp": "0", "preset": "ultrafast"},
                sound=clip.audio,
                sample_rate=SAMPLE_RATE,
            )
        if clip.depth is not None:
            write_video(folder / "depth" / f"{key}.mkv", clip.depth, FPS, codec="ffv1", pixel_format="gray16le")
        if clip.flow is not None:
            np.save(folder / "flow" / f"{key}.npy", clip.flow.astype(np.float16))
        count += 1
    return count


def _write_labels(path: Path, scenes: list[Scene], splits: dict[str, range]) -> None:
    """Writes `labels.csv`. Scenes are independent, so each clip is its own group."""
    chosen, streams = preset_named(scenes[0].preset), scenes[0].shown
    media = {"video": "mkv", "depth": "mkv", "flow": "npy"}
    kinds = [kind for kind in media if kind == "video" or kind in streams]
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        second = ["violence"] if chosen.signs else []
        rows.writerow([*kinds, "label", *second, "split", "group", "bits", "z", "q"])
        for scene in scenes:
            key = clip_key(scene.clip)
            split = next(name for name, ids in splits.items() if scene.clip in ids)
            bits = dict(zip(chosen.bits, chosen.table[scene.label], strict=True))
            rows.writerow(
                [
                    *(f"{kind}/{key}.{media[kind]}" for kind in kinds),
                    chosen.classes[scene.label],
                    *("violent" if chosen.violent[scene.label] else "calm" for _ in second),
                    split,
                    key,
                    *(
                        " ".join(f"{name}{value}" for name, value in facts.items())
                        for facts in (bits, scene.z, scene.q)
                    ),
                ]
            )
