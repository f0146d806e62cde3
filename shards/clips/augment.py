"""`AugmentConfig`: how strongly training clips are altered. Plain data for configs that needs no torch."""

from dataclasses import dataclass, field
from typing import Any


def _between(default: float, low: float, high: float | None = None) -> Any:
    """A number in [low, high], which configs check."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass
class AugmentConfig:
    """Strengths of the random changes to training clips."""

    crop_scale: float = _between(0.8, 0.01, 1)
    """Smallest side of the random crop, as a share of the picture. 1: no crop."""
    flip: bool = False
    """Whether clips are mirrored left to right at random. Not where direction is part of a class."""
    brightness: float = _between(0.2, 0)
    """Largest shift of RGB brightness, in standard deviations. 0: off."""
    contrast: float = _between(0.2, 0, 1)
    """Largest relative change of RGB contrast. 0: off."""
    saturation: float = _between(0.2, 0, 1)
    """Largest relative change of RGB saturation. 0: off."""
    gain_db: float = _between(6.0, 0)
    """Largest change of loudness, in decibels. 0: off."""
    noise: float = _between(0.0, 0)
    """Standard deviation of the noise added to normalised video. 0: off."""
    time_mask: float = _between(0.1, 0, 1)
    """Largest share of a spectrogram's time that is blanked (SpecAugment, Park et al. 2019). 0: off."""
    frequency_mask: float = _between(0.1, 0, 1)
    """Largest share of a spectrogram's frequencies that is blanked. 0: off."""
    audio_noise: float = _between(0.0, 0)
    """Largest standard deviation of white noise added to sound, as a share of the segment's own level. 0: off."""
    turn: float = _between(0.0, 0, 180)
    """Largest angle by which the axes of a worn sensor are turned, in degrees, about any axis (Um et al. 2017). 0:
    off."""
    signal_noise: float = _between(0.0, 0)
    """Standard deviation of the noise added to normalised signals. 0: off."""
