"""Hostile inputs: what each costs in time and memory, and whether `serve` is alive after all of them.

    python benchmarks/hostile/hostile_inputs.py [--only WORD] [--json FILE]

Uploads and requests go to a real `modalgate serve`, whose memory includes that of the processes that decode. Files
and bundles go to `predict`, `embed`, `pack`, `load_bundle` and `load_encoder`, each in a forked process. The status
is 1 if an input was not refused, if it took too long or too much memory, or if the server does not score a film
afterwards.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from hostile_bundles import BUNDLES
from hostile_files import FILES, HARMLESS, LONG, MEBIBYTE, PACKED, film
from hostile_requests import FORM, REQUESTS, Server, form, upload
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, load_bundle, save_bundle
from modalgate.fusion.bundle.embedder import PretrainedEncoder, load_encoder
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Statistics
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.media.damaged_packets import Damage
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.tasks.prediction.window_scores import predict

# What an input may cost: seconds, and MB beyond the idle process.
MOST_SECONDS, MOST_MEMORY = 60.0, 900
LIMITS = ["--max-mb", "8", "--queue", "2", "--max-seconds", "120", "--deadline", "30", "--max-memory", "512"]


@dataclass
class Row:
    """One input: entry point, name, answer, seconds, extra MB."""

    door: str
    name: str
    answer: str
    seconds: float
    memory: float
    fault: str = ""


@contextmanager
def watched(memory: Callable[[], float]) -> Iterator[list[float]]:
    """The highest memory during a block, in the list after it."""
    begun = memory()
    found, ended = [begun], threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            try:
                found[0] = max(found[0], memory())
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
        found[0] -= begun


def judged(row: Row, refused: bool) -> Row:
    faults = [] if refused else ["not refused"]
    faults += [f"more than {MOST_SECONDS:g} s"] if row.seconds > MOST_SECONDS else []
    faults += [f"more than {MOST_MEMORY} MB"] if row.memory > MOST_MEMORY else []
    row.fault = ", ".join(faults)
    return row


@contextmanager
def serving(bundle: Path, folder: Path) -> Iterator[Server]:
    command = [sys.executable, "-m", "modalgate.launch.cli", "serve", str(bundle), "--port", "0", *LIMITS]
    log = folder / "said.txt"
    with log.open("wb") as errors, subprocess.Popen(command, stderr=errors) as process:
        try:
            while not (found := re.search(r"http://\S+:(\d+)", log.read_text())):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.05)
            yield Server(process, int(found[1]))
        finally:
            process.kill()


def ask(server: Server, name: str, request: Callable[[Server], tuple[int, str]]) -> Row:
    """One request, and whether the server is alive after it."""
    with watched(server.memory) as memory:
        begun = time.monotonic()
        status, line = request(server)
        seconds = time.monotonic() - begun
    # Ends with the connection, or is refused with a status; what is scored in part has a note.
    refused = status in (0, 503) or 400 <= status < 500 or (status == 200 and (bool(line) or name in HARMLESS))
    row = judged(Row("serve", name, f"{status} {line}", seconds, memory[0]), refused)
    if server.send("GET", "/health")[0] != 200:
        row.fault = "the server is dead"
    return row


def in_child(work: Callable[[], object]) -> tuple[str, float, float]:
    """The error of `work` in a forked process, seconds and MB; empty if it raised none."""
    here, there = multiprocessing.Pipe()

    def run() -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            there.send(str(work() or ""))
        except Exception as error:
            there.send(f"{type(error).__name__}: {error}"[:200])

    process = multiprocessing.get_context("fork").Process(target=run)
    begun = time.monotonic()
    process.start()
    there.close()
    held = psutil.Process(process.pid)

    def memory() -> float:
        children = held.children(recursive=True)
        return sum(one.memory_info().rss for one in (held, *children) if one.is_running()) / MEBIBYTE

    with watched(memory) as peak:
        try:
            found = here.recv() if here.poll(2 * MOST_SECONDS) else "no answer"
        except EOFError:
            found = "the process died"
        seconds = time.monotonic() - begun
    process.kill()
    process.join()
    return found, seconds, peak[0]


def at_doors(loaded: Any, place: Path, name: str) -> Iterator[Row]:
    """One file at `predict`, `embed` and `pack`."""
    role, file, make = FILES[name]
    folder = place / "files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = folder / file
    path.write_bytes(make())
    (folder / "labels.csv").write_text(f"{role}\n{file}\n")
    files = {role: path}

    def predicting() -> str:
        damage = Damage()
        count = sum(1 for _ in predict(loaded, files, damage=damage))
        return f"scored {count}, {damage.packets} packets damaged"

    def embedding() -> str:
        encoder = PretrainedEncoder(loaded.backbone, loaded.spec, loaded.segments, loaded.application)
        pieces = recording_pieces(files, loaded.spec, encoder.modalities, encoder.application)
        return f"{len(encoder.embed_pieces(pieces))} rows"

    def packing() -> str:
        shutil.rmtree(place / "packed", ignore_errors=True)
        kinds = ("rgb", "audio") if role == "video" else (role,)
        index = pack(folder, place / "packed", PackSettings(kinds, size=32), workers=1)
        return f"{len(index.samples)} clips"

    for door, work in (("predict", predicting), ("embed", embedding), ("pack", packing)):
        if name in LONG and door != "pack":
            continue
        answer, seconds, memory = in_child(work)
        died = answer in ("", "no answer", "the process died") or answer.startswith(BUGS)
        yield judged(Row(door, name, answer, seconds, memory), not died)


# Errors that no reader may raise: they end a command as a defect.
BUGS = ("AttributeError", "TypeError", "RecursionError", "AssertionError", "UnboundLocalError", "SystemError")


def at_loading(bundle: Path, place: Path, name: str) -> Row:
    folder = place / "forged"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    BUNDLES[name](folder)
    door = load_encoder if len(name) % 2 else load_bundle
    answer, seconds, memory = in_child(lambda: door(folder) and "loaded")
    refused = answer.startswith(("DataError", "RequestError")) and "\n" not in answer
    return judged(Row(door.__name__, name, answer, seconds, memory), refused)


def make_bundle(folder: Path) -> Path:
    """A small classifier of pictures, sound and an inertial sensor."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = EncoderSpec("timm/convnext_atto", {"depths": [1, 1, 1, 1], "dims": [4, 4, 8, 8]}, pooling="mean")
    encoders = {"video": network, "audio": network, "signal": EncoderSpec("conv1d", {"widths": [8]}, pooling="mean")}
    names = {"rgb": 3, "audio": 1, "inertial": 6}
    backbone = Backbone(tuple(names), BackboneSpec(width=8, encoders=encoders))
    statistics = {name: Statistics((0.5,) * count, (1.0,) * count) for name, count in names.items()}
    spec = ClipSpec(0.4, 2, 32, 32, 8.0, 8000, 14.0, statistics)
    save_bundle(Bundle(Classifier(backbone, ["calm", "fight"]).eval(), spec, 1, "violence", "fight"), folder)
    return folder


def measure(only: str = "") -> Iterator[Row]:
    """The rows of all inputs whose names hold `only`, and of a film after all."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        bundle = make_bundle(place / "bundle")
        with serving(bundle, place) as server:
            good = upload("video", "film.mp4", film())
            server.send("POST", "/predict", form("video", "film.mp4", film()), FORM)
            for title, (role, file, make) in FILES.items():
                if only in title:
                    yield ask(server, title, upload(role, file, make()))
            for title, request in REQUESTS.items():
                if only in title:
                    yield ask(server, title, request)
            row = ask(server, "a good film after all", good)
            row.fault = "" if row.answer.strip() == "200" else "it is not scored"
            yield row
        loaded = load_bundle(bundle)
        for title in FILES:
            if only in title and (title in PACKED or title not in LONG):
                yield from at_doors(loaded, place, title)
        for title in BUNDLES:
            if only in title:
                yield at_loading(bundle, place, title)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="inputs whose names hold this")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    given = parser.parse_args()
    rows = []
    print(f"{'door':12} {'input':48} {'s':>6} {'MB':>6}  answer")
    for row in measure(given.only):
        rows.append(row)
        fault = f"  FAULT: {row.fault}" if row.fault else ""
        print(
            f"{row.door:12} {row.name:48} {row.seconds:6.2f} {row.memory:6.0f}  {row.answer[:90]}{fault}", flush=True
        )
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    faults = [row for row in rows if row.fault]
    print(f"{len(rows)} inputs, {len(faults)} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
