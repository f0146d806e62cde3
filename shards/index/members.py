"""Read the stored sound, signal and JSON of a clip. Whatever is damaged in them is a `ValueError`."""

import io
import json
import wave
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..modality import Modality


def stored_sound(data: bytes, sample_rate: int) -> NDArray[np.int16]:
    """Returns the samples (N,) of a wave member.

    Raises `ValueError` unless it is mono, 16 bits, at `sample_rate`, and not empty.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (sample_rate, 1, 2):
                raise ValueError(f"not mono 16-bit sound at {sample_rate} Hz")
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    # RuntimeError: the standard library, for a chunk that ends outside the file.
    except (wave.Error, EOFError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"not a wave file ({str(error) or type(error).__name__})") from error
    if not len(samples):
        raise ValueError("it holds no samples")
    return samples


def stored_signal(data: bytes, entry: Modality) -> NDArray[Any]:
    """Returns the values (N, C) of a signal member. Raises `ValueError` for another shape or type of values."""
    try:
        values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    # NumPy parses a header as source code, and believes its sizes.
    except (TokenError, SyntaxError, TypeError, OverflowError, MemoryError, EOFError) as error:
        raise ValueError(f"its NPY header is damaged ({error})") from error
    if values.ndim != 2 or values.shape[1] != entry.channels or not len(values) or values.dtype.kind not in "iuf":
        raise ValueError(f"shape {values.shape} of {values.dtype}, {entry.name} needs (samples, {entry.channels})")
    return values


def stored_facts(data: bytes) -> dict[str, dict[str, Any]]:
    """Returns the facts of each modality in a clip's JSON. Raises `ValueError` if it does not have that form."""
    try:
        facts = json.loads(data)["modalities"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its JSON is damaged ({error!r})") from error
    if not isinstance(facts, dict) or not all(isinstance(entry, dict) for entry in facts.values()):
        raise ValueError("its JSON is damaged (no table of modalities)")
    return facts


def stored_rate(data: bytes, name: str) -> float:
    """Returns the Hz of signal `name` in a clip's JSON. Raises `ValueError` if it is absent or not above 0."""
    rate = stored_facts(data).get(name, {}).get("rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < np.inf:
        raise ValueError(f"its JSON gives {name} the rate {rate!r}, not a number of Hz above 0")
    return float(rate)
