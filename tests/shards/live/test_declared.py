"""Modalities that are not built in: packed, streamed in other processes, and predicted as they are packed."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipRequest, ClipSpec
from modalgate.shards.clips.application import default_application
from modalgate.shards.clips.cut import slide_clip
from modalgate.shards.clips.piece import Piece
from modalgate.shards.errors import RequestError
from modalgate.shards.index.location import FolderReader
from modalgate.shards.index.table import load_index
from modalgate.shards.index.verify import verify
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.modality import MODALITIES, declare, plain_modality
from modalgate.shards.packing.pack import pack
from modalgate.shards.packing.sources import find_sources

DECLARED = ("thermal=video", "wide=video:3", "mic2=audio", "radar=signal:2@20")
NAMES = ("rgb", "thermal", "wide", "mic2", "radar")
# In a process that knows no declared modality: reads shards with a worker, and prints what arrived.
READER = """
import sys, torch
from modalgate.shards.index.table import load_index
from modalgate.shards.modality import MODALITIES
from modalgate.shards.stream import ClipRequest, ClipStream

if __name__ == "__main__":
    assert "radar" not in MODALITIES
    index = load_index(sys.argv[1])
    request = ClipRequest(("thermal", "wide", "mic2", "radar"), 1, 0.5, 5, 32)
    (batch,) = ClipStream(index, request, 3, workers=1).evaluate()
    for key, *streams in zip(batch.key, *(batch.streams[name].double() for name in request.modalities)):
        print(key, *(round(float(stream.mean()), 3) for stream in streams))
"""


@pytest.fixture
def declared(tmp_path: Path, own_table: None, film: Callable) -> Path:
    """Three recordings of 2 s: level 100 (n + 1) in clip n, gray 40 (n + 1), a tone, and a ramp from 0 to n + 1."""
    for name in ("thermal", "wide", "mic2", "radar"):
        (tmp_path / "in" / name).mkdir(parents=True)
    for number in range(3):
        film(tmp_path / "in" / "video" / f"c{number}.mp4", 2.0, seed=number)
        level, gray = 100 * (number + 1), 40 * (number + 1)
        write_video(
            tmp_path / "in" / "thermal" / f"c{number}.mkv",
            np.full((20, 32, 32), level, np.uint16),
            10.0,
            codec="ffv1",
            pixel_format="gray16le",
        )
        write_video(tmp_path / "in" / "wide" / f"c{number}.mp4", np.full((20, 32, 32, 3), gray, np.uint8), 10.0)
        tone = 0.1 * (number + 1) * np.sin(np.arange(32000) * 0.3).astype(np.float32)
        write_wave(tmp_path / "in" / "mic2" / f"c{number}.wav", tone, 16000)
        ramp = np.linspace(0, number + 1, 40, endpoint=False, dtype=np.float32)
        np.save(tmp_path / "in" / "radar" / f"c{number}.npy", np.stack([ramp, -ramp], axis=1))
    for text in DECLARED:
        declare(plain_modality(text))
    return tmp_path / "in"


@pytest.mark.slow
def test_declared_modalities_of_every_kind(declared: Path, tmp_path: Path, small: Callable) -> None:
    """They are packed without being named, hold the planted values, and are known wherever the shards are read."""
    index = pack(declared, tmp_path / "out", small(modalities=()), workers=2)
    assert index.modalities == ("rgb", "flow", *NAMES[1:])
    assert [entry.name for entry in index.settings.declared] == list(NAMES[1:])
    assert verify(tmp_path / "out") == []
    assert pack(declared, tmp_path / "out", small(modalities=())).samples == index.samples
    means = {name: index.statistics[name].mean[0] for name in NAMES[1:]}
    assert means["thermal"] == pytest.approx(200)
    assert means["wide"] == pytest.approx(80, abs=2)
    assert means["radar"] == pytest.approx(1, abs=0.05)
    (tmp_path / "reader.py").write_text(READER)
    run = [sys.executable, str(tmp_path / "reader.py"), str(tmp_path / "out")]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    rows = sorted(line.split() for line in printed.splitlines())
    assert [row[0] for row in rows] == ["c0", "c1", "c2"]
    for number, (_, thermal, wide, _, radar) in enumerate(rows):
        assert float(thermal) == 100 * (number + 1)
        assert float(wide) == pytest.approx(40 * (number + 1), abs=2)
        # Both channels of the ramp cancel.
        assert float(radar) == pytest.approx(0, abs=1e-3)


def test_declared_modalities_are_read_for_prediction_as_they_are_packed(
    declared: Path, tmp_path: Path, small: Callable
) -> None:
    index = pack(declared, tmp_path / "out", small(modalities=NAMES), workers=1)
    request = ClipRequest(NAMES, 1, 0.5, 5, 32)
    spec = ClipSpec.of(index, request)
    reader, application = FolderReader(index.folder), default_application(spec, 1)
    for source in find_sources(declared):
        sample = next(sample for sample in index.samples if sample.key == source.key)
        whole = slide_clip(reader, index.settings, spec, NAMES, replace(application, whole=30.0), None, sample)
        pieces = list(recording_pieces(source.files, spec, NAMES, replace(application, whole=30.0)))
        assert same_streams(list(whole), pieces)
        packed = list(slide_clip(reader, index.settings, spec, NAMES, application, 0.5, sample))
        found = list(recording_pieces(source.files, spec, NAMES, application, 0.5))
        assert [piece.start for piece in found] == [piece.start for piece in packed]
        for ours, theirs in zip(found, packed, strict=True):
            for name in ("thermal", "mic2", "radar"):
                np.testing.assert_allclose(ours.views[0].streams[name], theirs.views[0].streams[name], atol=1e-3)
            assert set(ours.present) == set(NAMES)


def same_streams(first: list[Piece], second: list[Piece]) -> bool:
    return len(first) == len(second) and all(
        all(np.array_equal(a.views[0].streams[name], b.views[0].streams[name]) for name in NAMES)
        for a, b in zip(first, second, strict=True)
    )


def test_shards_that_declare_a_name_differently_are_refused(declared: Path, tmp_path: Path, small: Callable) -> None:
    pack(declared, tmp_path / "out", small(modalities=("radar",)), workers=1)
    del MODALITIES["radar"]
    declare(plain_modality("radar=signal:3@20"))
    with pytest.raises(RequestError, match="modality 'radar' is already known as signal of 3 channels at 20 Hz"):
        load_index(tmp_path / "out")
