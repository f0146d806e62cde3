"""Speed of `modalgate predict` on one core: seconds of film per second, by torch and by ONNX, and its first line.

    .venv/bin/pip install --constraint constraints.txt 'modalgate[export]'
    .venv/bin/python benchmarks/speed/predict.py [--seconds 60] [--rounds 5] [--size 112] [--json FILE]

The model is a violence classifier of rgb and flow, `test_convnext` and a GRU each, with random weights: windows of 1
s, 8 frames of 112 px, every half second. The film is a moving texture of 320 x 240 at 25 frames per second, H.264.
`modalgate export` writes bundle and graph. Each run is a fresh process on one core. The two kinds take turns, and the
median counts.

`..._times_real_time`: seconds of film from the first line to the last, divided by the seconds between them.
`..._whole_times_real_time`: seconds of the film, divided by the time from start to end. `..._first_line_seconds`:
from the start of the process to its first JSON line. `onnx_to_eager`: ratio of their speeds between the lines.
`part_..._ms`: CPU milliseconds per second of film, in this process, one part after the other: decoding alone, then
with the windows of rgb, then with flow, and each network.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch
from films import texture
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.cli import main as modalgate
from modalgate.launch.predict.onnx_scorer import OnnxScorer
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.piece import Window
from modalgate.shards.index.table import Statistics
from modalgate.shards.live.sliding import slide
from modalgate.shards.media.container_io import iterate_frames, write_video
from modalgate.tasks.prediction.torch_scorer import EagerScorer
from modalgate.tasks.prediction.window_scores import Scorer

MODALITIES = ("rgb", "flow")
VIDEO = EncoderSpec("timm/test_convnext", pooling="gru")
FILM_RATE = 25
# As `predict` takes them.
BATCH = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="of the film")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=112, help="pixels of the model's pictures")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        film = scratch / "film.mp4"
        write_video(film, texture(FILM_RATE * arguments.seconds, 240, 320), FILM_RATE)
        models = export_models(scratch, arguments.size)
        figures = measure(models, film, arguments.rounds)
        figures |= measure_parts(models, film, arguments.seconds)
    figures["load_average"] = os.getloadavg()[0]
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def export_models(scratch: Path, size: int) -> dict[str, Path]:
    """The classifier as a bundle and as an ONNX file, by the command line."""
    torch.manual_seed(0)
    classifier = Classifier(Backbone(MODALITIES, BackboneSpec(encoders={"video": VIDEO})), ["calm", "fight"]).eval()
    statistics_of = {"rgb": Statistics((100.0,) * 3, (50.0,) * 3), "flow": Statistics((0.0,) * 2, (2.0,) * 2)}
    spec = ClipSpec(1.0, 8, size, size, 15.0, 16000, 14.0, statistics_of)
    save_bundle(Bundle(classifier, spec, 3, "violence", "fight"), scratch / "run" / "encoder")
    models = {"eager": scratch / "classifier", "onnx": scratch / "classifier.onnx"}
    for name, options in {"eager": [], "onnx": ["--format", "onnx"]}.items():
        if modalgate(["export", str(scratch / "run"), str(models[name]), *options]):
            raise SystemExit(f"the {name} model cannot be exported: see above")
    return models


def measure(models: dict[str, Path], film: Path, rounds: int) -> dict[str, float]:
    """Medians over the rounds of every figure of fresh processes, the models by turns."""
    found: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        for name, model in models.items():
            for figure, value in run_once(model, film).items():
                if number:  # the first round warms up the disk's cache
                    found.setdefault(f"{name}_{figure}", []).append(value)
    figures = {name: statistics.median(values) for name, values in found.items()}
    figures["onnx_to_eager"] = figures["onnx_times_real_time"] / figures["eager_times_real_time"]
    return figures


def run_once(model: Path, film: Path) -> dict[str, float]:
    """One `modalgate predict`, read line by line."""
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "modalgate.launch.cli", "predict", str(model), str(film)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    ends: list[tuple[float, float]] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            line = json.loads(text)
            if line["kind"] == "window":
                ends.append((time.perf_counter() - began, line["end"]))
    whole = time.perf_counter() - began
    if process.returncode or len(ends) < 2:
        raise SystemExit(f"{' '.join(command)} has failed: see above")
    (first, first_end), (last, last_end) = ends[0], ends[-1]
    return {
        "times_real_time": (last_end - first_end) / (last - first),
        "whole_times_real_time": last_end / whole,
        "first_line_seconds": first,
    }


def measure_parts(models: dict[str, Path], film: Path, seconds: int) -> dict[str, float]:
    """CPU milliseconds per second of film; decoding, rgb and flow each include what comes before."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    bundle = load_bundle(models["eager"])
    files = {"video": film}

    def cut(modalities: tuple[str, ...]) -> "list[Window]":
        pieces = slide(files, bundle.spec, modalities, bundle.application)
        return [view for piece in pieces for view in piece.views]

    windows = cut(MODALITIES)

    def score(scorer: Scorer) -> None:
        for first in range(0, len(windows), BATCH):
            scorer.score(windows[first : first + BATCH])

    def count(held: "list[Window]") -> None:
        assert len(held) == len(windows)

    os.environ["OMP_NUM_THREADS"] = "1"
    eager, graph = EagerScorer(bundle), OnnxScorer(models["onnx"])
    parts: dict[str, Callable[[], None]] = {
        "decode": lambda: [None for _ in iterate_frames(film)].clear(),
        "rgb": lambda: count(cut(("rgb",))),
        "flow": lambda: count(cut(MODALITIES)),
        "eager": lambda: score(eager),
        "onnx": lambda: score(graph),
    }
    return {f"part_{name}_ms": 1000 * _cpu_seconds(work) / seconds for name, work in parts.items()}


def _cpu_seconds(work: Callable[[], None]) -> float:
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
