"""How strongly training clips are altered, as plain data: configs hold it, and reading it needs no torch."""

from dataclasses import dataclass


@dataclass
class AugmentConfig:
    """Strengths of the training-time augmentation; zero switches one off (`crop_scale` 1).

    `crop_scale`: smallest side kept by the random crop; `flip`: left-right at random (never where direction is a
    class); `brightness`, `contrast`, `saturation`: largest relative change; `gain_db`: largest change of loudness;
    `noise`: deviation of noise added to normalised video; `audio_noise`: largest deviation of white noise added to
    sound, as a share of the segment's own level; `turn`: largest angle in degrees by which a worn sensor's axes are
    turned, about any axis (Um et al. 2017); `signal_noise`: deviation of noise added to normalised signals;
    `time_mask`, `frequency_mask`: largest share of the spectrogram blanked (SpecAugment, Park et al. 2019).
    """

    crop_scale: float = 0.8
    flip: bool = False
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    gain_db: float = 6.0
    noise: float = 0.0
    time_mask: float = 0.1
    frequency_mask: float = 0.1
    audio_noise: float = 0.0
    turn: float = 0.0
    signal_noise: float = 0.0
