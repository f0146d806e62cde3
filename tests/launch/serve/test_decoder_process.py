"""Decoding in a separate process: the same pieces, a memory limit, a kill, and no process left."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from modalgate.fusion.bundle.bundle import Bundle, load_bundle
from modalgate.launch.serve.decoder_process import Decoder, Job, Undecodable
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.thumbnails import stills


@pytest.fixture(scope="module")
def bundle(action_bundle: Path) -> Bundle:
    return load_bundle(action_bundle)


def job(bundle: Bundle, video: Path, **changes: Any) -> Job:
    names = bundle.backbone.modalities
    settings = {"hop": None, "max_seconds": 60.0, "max_memory": 512} | changes
    return Job({"video": video}, bundle.spec, names, bundle.application, **settings)


def decoded(decoder: Decoder, pause: float = 0.0) -> int:
    """The number of pieces, each taken after a pause."""
    decoder.duration()
    return sum(time.sleep(pause) is None for _ in decoder.pieces())


def test_pieces_and_pictures_are_those_of_this_process(bundle: Bundle, hall_film: Path) -> None:
    expected = list(
        recording_pieces({"video": hall_film}, bundle.spec, bundle.backbone.modalities, bundle.application)
    )
    with Decoder(job(bundle, hall_film)) as decoder:
        assert decoder.duration() == pytest.approx(6.0, abs=0.1)
        found = list(decoder.pieces())
        assert decoder.damage.packets == 0
        assert decoder.stills([1.0, 3.0]) == stills(hall_film, [1.0, 3.0])
    assert [(piece.start, piece.end) for piece in found] == [(piece.start, piece.end) for piece in expected]
    for mine, theirs in zip(found, expected, strict=True):
        for view, other in zip(mine.views, theirs.views, strict=True):
            assert view.streams.keys() == other.streams.keys()
            for name, values in view.streams.items():
                np.testing.assert_array_equal(values, other.streams[name])


@pytest.mark.slow
def test_memory_beyond_the_limit_is_an_error_not_a_death(bundle: Bundle, tmp_path: Path) -> None:
    """One picture of 33 million pixels takes 150 MB with its conversion."""
    path = tmp_path / "large.mkv"
    write_video(path, np.zeros((2, 4320, 7680, 3), np.uint8), 10, codec="ffv1", pixel_format="bgr0")
    with Decoder(job(bundle, path, max_memory=64)) as decoder, pytest.raises(Undecodable, match=r"(?i)memory"):
        decoded(decoder)
    with Decoder(job(bundle, path, max_memory=2048)) as decoder:
        assert decoded(decoder)


@pytest.mark.parametrize("seconds", [2.0, 5.0])
def test_a_recording_that_is_too_long_is_refused(seconds: float, bundle: Bundle, hall_film: Path) -> None:
    wanted = job(bundle, hall_film, max_seconds=seconds)
    with Decoder(wanted) as decoder, pytest.raises(Undecodable, match="more than"):
        decoded(decoder)


def test_a_stopped_decoder_says_why_and_leaves_no_process(bundle: Bundle, hall_film: Path) -> None:
    with Decoder(job(bundle, hall_film, hop=0.01)) as decoder:
        threading.Timer(0.5, decoder.stop, ["it is not scored after 1 s"]).start()
        with pytest.raises(Undecodable, match="it is not scored after 1 s"):
            decoded(decoder, pause=0.05)
    assert not psutil.pid_exists(decoder.process.pid)


def test_a_decoder_that_dies_is_reported(bundle: Bundle, hall_film: Path) -> None:
    with Decoder(job(bundle, hall_film, hop=0.01)) as decoder:
        decoder.duration()
        os.kill(decoder.process.pid, 11)
        with pytest.raises(Undecodable, match="the process that read it died"):
            list(decoder.pieces())
        with pytest.raises(Undecodable, match="the process that read it died"):
            decoder.stills([0.0])
