"""Speed of reading clips from shards: against the source files, JPEG shards, and plain decoding.

    .venv/bin/pip install --constraint constraints.txt --requirement benchmarks/requirements.txt
    .venv/bin/python benchmarks/speed/loader.py [SOURCE] [--clips 96] [--rounds 7] [--json FILE]

Every reader gets the same windows of the same clips, those that modalgate's stream draws: 16 frames of 112 px and
1.28 s of sound. Each reader has one thread and its own process. The processes take turns, one pass over all clips
each, and the median over the rounds counts. Without SOURCE, films with sound are generated first.

`ratio_to_fastest_file_peer`: speed relative to the fastest of PyAV, pytorchvideo and torchcodec on the source
files. `ratio_to_jpeg_shards`: relative to WebDataset shards of JPEG frames (quality 90) of the packed size and
rate. `jpeg_bytes_ratio`: bytes of those frames relative to our video members. `ratio_to_decode_limit`: relative to
a plain loop, in this process, that reads the same members, decodes the same packets and converts the requested
frames to RGB. `ratio_to_packet_limit`: relative to the same loop without the RGB.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import av
import cv2
from films import write_films
from loader_peers import BATCH, FILE_PEERS, SECONDS, read_at, serve
from modalgate.shards.index.table import Index, Sample
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack

JPEG_QUALITY = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", nargs=2, metavar=("NAME", "SCRATCH"), help="used by the benchmark itself")
    arguments = parser.parse_args()
    if arguments.peer:
        serve(arguments.peer[0], Path(arguments.peer[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        source = arguments.source or write_films(scratch / "films", arguments.clips)
        index = pack(source, scratch / "shards", PackSettings(modalities=("rgb", "audio")))
        figures = prepare(source, index, scratch, arguments.clips)
        figures |= measure(scratch, arguments.rounds)
    figures["load_average"] = os.getloadavg()[0]
    for name, value in figures.items():
        print(f"{name:28} {value:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def prepare(source: Path, index: Index, scratch: Path, count: int) -> dict[str, float]:
    """Chooses clips with sound that are whole films, writes them as JPEG shards, and says what both take in bytes."""
    files = {path.name: path for path in source.rglob("*") if path.is_file()}
    chosen: dict[str, Path] = {}
    jpeg_bytes = video_bytes = 0
    (scratch / "jpeg").mkdir()
    with tarfile.open(scratch / "jpeg" / "00000.tar", "w") as jpeg:
        for sample in index.samples:
            facts = json.loads(member(index, sample, "json"))
            whole = sample.duration >= SECONDS and facts["start"] == 0
            if len(chosen) == count or "audio.wav" not in sample.members or not whole:
                continue
            chosen[sample.key] = files[Path(facts["source"]).name]
            video_bytes += sample.members["rgb.mp4"][1]
            jpeg_bytes += write_jpegs(jpeg, sample.key, member(index, sample, "rgb.mp4"))
            add(jpeg, f"{sample.key}.audio.wav", member(index, sample, "audio.wav"))
    keys = list(chosen)[: len(chosen) // BATCH * BATCH]
    if not keys:
        raise SystemExit(f"'{source}' holds fewer than {BATCH} films with sound of at least {SECONDS} s")
    (scratch / "keys.json").write_text(json.dumps(keys))
    (scratch / "files.json").write_text(json.dumps({key: str(chosen[key]) for key in keys}))
    (scratch / "jpeg.json").write_text(json.dumps({"fps": index.settings.fps}))
    return {"clips": len(keys), "jpeg_bytes_ratio": jpeg_bytes / video_bytes}


def member(index: Index, sample: Sample, suffix: str) -> bytes:
    assert isinstance(index.folder, Path)
    with open(index.folder / sample.shard, "rb") as shard:
        return read_at(shard, *sample.members[suffix])


def write_jpegs(tar: tarfile.TarFile, key: str, video: bytes) -> int:
    total = 0
    with av.open(io.BytesIO(video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            picture = frame.to_ndarray(format="bgr24")
            _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            add(tar, f"{key}.{number:05d}.jpg", data.tobytes())
            total += len(data)
    return total


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


class Peer:
    """A reader in its own process, which runs one pass per request."""

    def __init__(self, name: str, scratch: Path) -> None:
        command = [sys.executable, __file__, "--peer", name, str(scratch)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hindrance: str = self.answer()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the reader {self.process.args} has ended: see its message above")
        return json.loads(line)

    def ask(self, what: Any, colours: bool = False) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, colours]) + "\n")
        self.process.stdin.flush()
        return self.answer()


def measure(scratch: Path, rounds: int) -> dict[str, float]:
    """Milliseconds per clip of every reader, by median over the rounds, and the ratios of speeds."""
    clips = len(json.loads((scratch / "keys.json").read_text()))
    own, peers = Peer("modalgate", scratch), {}
    for name in ("jpeg_shards", *FILE_PEERS):
        peer = Peer(name, scratch)
        if peer.hindrance:
            print(f"{name} is skipped: {peer.hindrance}")
        else:
            peers[name] = peer
    times: dict[str, list[float]] = {name: [] for name in ("modalgate", "decode_limit", "packet_limit", *peers)}
    for number in range(rounds + 1):
        read = own.ask(clips)
        taken = {"modalgate": read["seconds"]}
        for name, colours in (("decode_limit", True), ("packet_limit", False)):
            taken[name] = own.ask(read["windows"], colours)["seconds"]
        taken |= {name: peer.ask(read["windows"])["seconds"] for name, peer in peers.items()}
        if number:  # the first pass warms up caches and imports
            for name, seconds in taken.items():
                times[name].append(1000 * seconds / clips)
    figures = {f"{name}_ms": statistics.median(values) for name, values in times.items()}
    fastest = min(figures[f"{name}_ms"] for name in peers if name in FILE_PEERS)
    return figures | {
        "ratio_to_fastest_file_peer": fastest / figures["modalgate_ms"],
        "ratio_to_jpeg_shards": figures["jpeg_shards_ms"] / figures["modalgate_ms"],
        "ratio_to_decode_limit": figures["decode_limit_ms"] / figures["modalgate_ms"],
        "ratio_to_packet_limit": figures["packet_limit_ms"] / figures["modalgate_ms"],
    }


if __name__ == "__main__":
    main()
