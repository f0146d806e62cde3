"""Cost of packing: how busy it keeps the cores, how fast it is, and flow against plain OpenCV DIS.

    .venv/bin/python benchmarks/speed/pack_cost.py [SOURCE] [--films 48] [--repeats 41] [--json FILE]

Without SOURCE, films of 4 s at 320 x 240 and 30 frames per second, with sound, are generated first. Flow and the
plain search run in turn in this process, on one thread; the median of each counts. `cores_busy` counts everything
that runs on the machine between the first recording and the last, `own_busy` only the packing processes. On an idle
machine the two agree.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import psutil
from films import texture, write_films
from modalgate.shards.media.flow import compute_flow
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--films", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=41)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = measure_flow(arguments.repeats)
    with tempfile.TemporaryDirectory() as scratch:
        source = arguments.source or write_films(Path(scratch) / "films", arguments.films)
        figures |= measure_pack(source, Path(scratch) / "shards")
    figures["load_average"] = os.getloadavg()[0]
    for name, value in figures.items():
        print(f"{name:32} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def measure_flow(repeats: int) -> dict[str, float]:
    """Milliseconds per frame at the packed size: from RGB to (2, H, W), against the search on gray pictures alone."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    frames = texture(12, 112, 150)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def bare() -> None:
        for before, after in pairwise(gray):
            search.calc(before, after, np.empty(0))

    times: dict[str, list[float]] = {"flow_ms": [], "bare_dis_ms": []}
    for _ in range(repeats + 1):
        for name, work in (("flow_ms", lambda: compute_flow(frames)), ("bare_dis_ms", bare)):
            began = time.perf_counter()
            work()
            times[name].append(1000 * (time.perf_counter() - began) / (len(frames) - 1))
    cv2.setNumThreads(threads)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    return medians | {"flow_ratio_to_bare_dis": medians["bare_dis_ms"] / medians["flow_ms"]}


def measure_pack(source: Path, out: Path) -> dict[str, float]:
    """Shares of all cores' time, and speed, with one process per core and the default settings."""
    cores = os.cpu_count() or 1
    moments: list[tuple[float, float, float, int]] = []

    def tell(done: int, total: int, rejected: int) -> None:
        # Processes end after the last recording, so their use is measured while they work.
        moments.append((time.perf_counter(), busy_seconds(), tree_seconds(), done))

    began = time.perf_counter()
    index = pack(source, out, PackSettings(), progress=tell)
    seconds = time.perf_counter() - began
    # The first report is made before there are processes, and at the last all but one are out of work.
    first, last = moments[1], moments[-cores - 1]
    wall = cores * (last[0] - first[0])
    hours = sum(sample.duration for sample in index.samples)
    return {
        "cores": cores,
        "cores_busy": (last[1] - first[1]) / wall,
        "own_busy": (last[2] - first[2]) / wall,
        "recordings_per_second": (last[3] - first[3]) / (last[0] - first[0]),
        "seconds_of_video_per_second": hours / seconds,
        "pack_seconds": seconds,
    }


def busy_seconds() -> float:
    """Processor seconds that all cores of the machine have worked."""
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0)


def tree_seconds() -> float:
    """Processor seconds of this process and those it started."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            spent = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return total


if __name__ == "__main__":
    main()
