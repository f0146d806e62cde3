"""Length of pieces, the limit for whole clips, and start times of views, against what evaluation cuts."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from modalgate.shards.clip_spec import ClipSpec, plain_clip_spec
from modalgate.shards.clips.application import Application, clip_application, default_application, plain_application
from modalgate.shards.clips.windows import uniform_starts
from modalgate.shards.index.table import Statistics
from modalgate.shards.media.pack_settings import PackSettings

SPEC = ClipSpec(0.5, 3, 24, 32, 10.0, 16000, 14.0, {"rgb": Statistics((0.0,), (1.0,))})


def test_lengths_of_pieces_and_of_whole_clips() -> None:
    assert clip_application(4, [1.0, 2.0, 4.0], 30.0) == Application(4, 2.0, 4.0, 6.0, 1.0)


def test_a_recording_that_packing_would_cut_is_not_a_whole_clip() -> None:
    assert clip_application(4, [12.0, 30.0, 30.0], 30.0).whole == 30.0
    assert clip_application(1, [8.0], 10.0).whole == 10.0


def test_without_known_clips_a_window_is_a_piece() -> None:
    assert default_application(SPEC, 3) == Application(3, 0.5, 0.0, 0.0, 0.25)


def test_a_stretched_model_without_known_clips() -> None:
    packing = PackSettings(clip_seconds=12.0)
    stretched = replace(SPEC, stretch=0.25, packing=packing)
    assert default_application(stretched, 3) == Application(3, 2.0, 0.0, 12.0, 1.0)
    assert stretched.covered(2.0) == 0.5


@pytest.mark.parametrize("stretch", [0.0, 0.75])
@pytest.mark.parametrize("duration", [0.2, 0.5, 0.5 + 1e-13, 2.0])
def test_views_start_as_in_evaluation(duration: float, stretch: float) -> None:
    spec, application = replace(SPEC, stretch=stretch), clip_application(3, [1.0], 30.0)
    expected = uniform_starts(duration, stretch * duration or 0.5, 3)
    found = application.starts(spec, duration)
    # If all views are equal, one is enough: the mean is the same.
    assert len(found) == (1 if not stretch and duration < 0.6 else 3)
    np.testing.assert_allclose(np.broadcast_to(found, 3), expected, atol=1e-9)


def test_the_step_is_given_or_default_and_above_zero() -> None:
    application = clip_application(1, [2.0], 30.0)
    assert (application.step(), application.step(0.1)) == (1.0, 0.1)
    with pytest.raises(ValueError, match="hop of 0 s"):
        application.step(0.0)


def test_it_is_plain_data() -> None:
    application = replace(clip_application(4, [2.0], 30.0), threshold=0.7, temperature=1.5)
    assert plain_application(asdict(application), SPEC, 9) == application
    assert plain_application(None, SPEC, 9) == default_application(SPEC, 9)
    packing = PackSettings(("rgb",), crf=30, depth_scale=0.5, rates={"video": 30.0}, region=(0.0, 0.0, 0.5, 0.5))
    spec = replace(SPEC, packing=packing, region=packing.region)
    assert plain_clip_spec(asdict(spec)) == spec
    assert plain_clip_spec(asdict(SPEC)) == SPEC


def test_fields_of_the_spec_override_its_packing() -> None:
    settings = replace(SPEC, packing=PackSettings(size=64, crf=30)).pack_settings()
    assert (settings.size, settings.fps, settings.crf) == (32, 10.0, 30)
    assert SPEC.pack_settings().crf == PackSettings().crf
