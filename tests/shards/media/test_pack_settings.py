"""Pack settings: values out of range are refused by name, and differences are named."""

import math
from dataclasses import asdict

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.media.pack_settings import PackSettings, difference, plain_settings


def test_a_value_out_of_range_is_named() -> None:
    for name, value in (
        *((name, value) for name in ("fps", "flow_bound", "depth_scale") for value in (0, -1.0, math.nan, math.inf)),
        *((name, value) for name in ("clip_seconds", "max_seconds") for value in (0.0, -1, math.nan)),
        *((name, value) for name in ("size", "sample_rate", "gop", "readers") for value in (0, -3, 2.5, "8", True)),
        *((name, 0) for name in ("samples_per_shard", "max_pixels")),
        *((name, -1) for name in ("crf", "seed")),
        *(("silence_db", value) for value in (1.0, math.nan, "quiet")),
        ("fps", "15"),
        ("fps", None),
        ("rates", {"inertial": 0.0}),
        ("rates", {"inertial": -50.0}),
        ("rates", {"inertial": math.inf}),
        ("region", (0.5, 0.5, 0.6, 0.5)),
    ):
        with pytest.raises(RequestError, match="rate of inertial" if name == "rates" else name):
            PackSettings(**{name: value})


def test_values_at_the_edge_are_accepted() -> None:
    PackSettings(size=2, fps=0.1, crf=0, gop=1, seed=0, silence_db=-math.inf, max_seconds=math.inf, readers=1)
    PackSettings(size=int(np.int64(16)), fps=np.float64(12.5), rates={"inertial": 50})


def test_settings_from_json_are_checked_too() -> None:
    content = asdict(PackSettings(region=(0.0, 0.0, 0.5, 0.5)))
    assert plain_settings(content) == PackSettings(region=(0.0, 0.0, 0.5, 0.5))
    with pytest.raises(RequestError, match="pack setting fps is 0"):
        plain_settings(content | {"fps": 0})


def test_differences_are_named() -> None:
    first, second = asdict(PackSettings()), asdict(PackSettings(size=128, fps=30.0))
    assert difference(first, second) == "size 112, not 128, fps 15.0, not 30.0"
    assert difference(first, first) == ""
