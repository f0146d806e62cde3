"""Stored members are read as they were written, and any damage to them is a `ValueError`."""

import io
import json
import random
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from modalgate.shards.index.members import stored_facts, stored_rate, stored_signal, stored_sound
from modalgate.shards.media.container_io import write_wave
from modalgate.shards.modality import modality

INERTIAL = modality("inertial")


def npy(values: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, values)
    return target.getvalue()


def sound(channels: int = 1, width: int = 2, rate: int = 16000) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(bytes(range(240)))
    return target.getvalue()


SIGNAL = npy(np.arange(60.0).reshape(10, 6).astype(np.float32))
FACTS = json.dumps({"modalities": {"inertial": {"rate": 50.0}, "rgb": {}}}).encode()
READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "sound": (lambda data: stored_sound(data, 16000), sound()),
    "signal": (lambda data: stored_signal(data, INERTIAL), SIGNAL),
    "json": (stored_facts, FACTS),
    "rate": (lambda data: stored_rate(data, "inertial"), FACTS),
}


def test_whole_members_are_read() -> None:
    target = io.BytesIO()
    write_wave(target, np.linspace(-1, 1, 101, dtype=np.float32), 16000)
    np.testing.assert_allclose(stored_sound(target.getvalue(), 16000) / 32767, np.linspace(-1, 1, 101), atol=1e-4)
    np.testing.assert_array_equal(stored_signal(SIGNAL, INERTIAL), np.arange(60.0).reshape(10, 6))
    assert stored_facts(FACTS) == {"inertial": {"rate": 50.0}, "rgb": {}}
    assert stored_rate(FACTS, "inertial") == 50.0


@pytest.mark.parametrize("name", READERS)
def test_damage_is_a_value_error_or_unseen(name: str) -> None:
    """Zeros, cuts, and six hundred changes of a few bytes in the header, each with a seed of its own."""
    read, data = READERS[name]
    changed = [bytes(len(data)), b"", *(data[:size] for size in range(0, len(data), 7))]
    for seed in range(600):
        draw, other = random.Random(seed), bytearray(data)
        first = draw.randrange(min(len(data), 128))
        other[first : first + draw.randint(1, 8)] = draw.choice([b"([{'\"\n 9", b"\0", b"\xff", draw.randbytes(4)])
        changed.append(bytes(other))
    failed = 0
    for other in changed:
        try:
            read(other)
        except ValueError:
            failed += 1
    assert failed > 20


def test_sound_of_another_form_is_not_read_as_samples() -> None:
    for data in (sound(2), sound(1, 1), sound(rate=8000)):
        with pytest.raises(ValueError, match="not mono 16-bit sound at 16000 Hz"):
            stored_sound(data, 16000)


def test_a_signal_of_another_form_is_named() -> None:
    for values in (
        np.zeros((10, 5)),
        np.zeros(10),
        np.zeros((0, 6)),
        np.zeros((4, 6), "<U2"),
        np.zeros((4, 6), complex),
    ):
        with pytest.raises(ValueError, match=r"shape .*, inertial needs \(samples, 6\)"):
            stored_signal(npy(values), INERTIAL)


def test_a_rate_that_is_not_one_is_named() -> None:
    for facts in ({}, {"rate": 0}, {"rate": -5}, {"rate": "50"}, {"rate": None}, {"rate": True}):
        with pytest.raises(ValueError, match="gives inertial the rate"):
            stored_rate(json.dumps({"modalities": {"inertial": facts}}).encode(), "inertial")
        with pytest.raises(ValueError, match="no table of modalities"):
            stored_facts(b'{"modalities": {"inertial": 3}}')
