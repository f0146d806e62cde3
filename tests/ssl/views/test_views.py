"""Altered input: changed and unchanged parts, and equally frequent classes."""

import pytest
import torch
from modalgate.ssl.views.views import corrupt, forward, pace, reverse, take_segments
from torch import Tensor

CLIPS, SEGMENTS, FRAMES = 8, 3, 6


@pytest.fixture
def streams() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "rgb": torch.randn(CLIPS, SEGMENTS, FRAMES, 3, 4, 4),
        "flow": torch.randn(CLIPS, SEGMENTS, FRAMES, 2, 4, 4),
        "depth_flow": torch.randn(CLIPS, SEGMENTS, FRAMES, 2, 4, 4),
        "audio": torch.randn(CLIPS, SEGMENTS, 1, 8, 10),
        "inertial": torch.randn(CLIPS, SEGMENTS, 12, 6),
    }


@pytest.fixture
def present(streams: dict[str, Tensor]) -> dict[str, Tensor]:
    masks = {name: torch.ones(CLIPS, SEGMENTS, dtype=torch.bool) for name in streams}
    masks["audio"][2] = False
    return masks


def test_reverse_flips_one_segment_of_every_stream(streams: dict[str, Tensor], present: dict[str, Tensor]) -> None:
    view = reverse(streams, present, torch.Generator().manual_seed(1))
    assert view.segments.shape == (CLIPS, 1)
    assert len(view.segments.unique()) == SEGMENTS
    for clip, segment in enumerate(view.segments[:, 0].tolist()):
        for frame in range(FRAMES):
            mirror = FRAMES - 1 - frame
            assert torch.equal(view.streams["rgb"][clip, 0, frame], streams["rgb"][clip, segment, mirror])
            # The entry of the last frame is the motion from the frame before the window: the one before it repeats.
            entry = max(mirror - 1, 0)
            for flow in ("flow", "depth_flow"):
                assert torch.equal(view.streams[flow][clip, 0, frame], -streams[flow][clip, segment, entry])
        assert torch.equal(view.streams["audio"][clip, 0, 0, :, 0], streams["audio"][clip, segment, 0, :, -1])
        assert torch.equal(view.streams["inertial"][clip, 0, 0], streams["inertial"][clip, segment, -1])
    assert view.present["audio"][:, 0].tolist() == [clip != 2 for clip in range(CLIPS)]


def test_reversed_flow_is_the_flow_of_the_reversed_recording() -> None:
    """Cameras that pan with acceleration: a recording played backwards gives the same flow as the view `reverse`."""
    places = torch.randn(CLIPS, SEGMENTS, FRAMES + 1, generator=torch.Generator().manual_seed(0)).cumsum(2)
    backwards = places[:, :, :FRAMES].flip(2)  # its flow needs one frame more, whatever it shows
    backwards = torch.cat([backwards, torch.full_like(backwards[:, :, :1], 9.0)], 2)
    recordings = [
        {"flow": path.diff(dim=2)[..., None, None, None].expand(-1, -1, -1, 2, 4, 4)} for path in (places, backwards)
    ]
    present = {"flow": torch.ones(CLIPS, SEGMENTS, dtype=torch.bool)}
    turned = reverse(recordings[0], present, torch.Generator().manual_seed(1))
    ahead = forward(recordings[1], present, torch.Generator())
    assert torch.equal(turned.streams["flow"], take_segments(ahead.streams["flow"], turned.segments))
    # Neither view marks the end of a window more than the other.
    for view in (turned, ahead):
        assert torch.equal(view.streams["flow"][:, :, -1], view.streams["flow"][:, :, -2])


def test_forward_changes_only_flow(streams: dict[str, Tensor], present: dict[str, Tensor]) -> None:
    view = forward(streams, present, torch.Generator())
    assert set(view.streams) == {"flow", "depth_flow"}
    assert view.segments.tolist() == [list(range(SEGMENTS))] * CLIPS
    for name, stream in view.streams.items():
        assert torch.equal(stream[:, :, :-1], streams[name][:, :, :-1])
    single = {"flow": streams["flow"][:, :, :1]}
    assert torch.equal(forward(single, present, torch.Generator()).streams["flow"], single["flow"])


def test_pace_has_the_same_number_of_frames_at_both_rates(
    streams: dict[str, Tensor], present: dict[str, Tensor]
) -> None:
    firsts = set()
    for seed in range(20):
        view = pace(streams, present, torch.Generator().manual_seed(seed))
        assert set(view.streams) == {"rgb", "flow", "depth_flow"}
        assert view.facts["rate"].sum() == CLIPS // 2
        for clip, segment in enumerate(view.segments[:, 0].tolist()):
            rate = 1 + int(view.facts["rate"][clip])
            taken, source = view.streams["rgb"][clip, 0], streams["rgb"][clip, segment]
            assert len(taken) == FRAMES // 2
            first = next(i for i in range(FRAMES) if torch.equal(source[i], taken[0]))
            firsts.add((rate, first))
            assert torch.equal(taken, source[first : first + rate * (FRAMES // 2) : rate])
    assert firsts == {(1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (2, 1)}


def test_corrupt_keeps_one_modality_clean_and_states_the_severity(
    streams: dict[str, Tensor], present: dict[str, Tensor]
) -> None:
    generator = torch.Generator().manual_seed(3)
    seen = torch.zeros(len(streams))
    for _ in range(60):
        view = corrupt(streams, present, generator)
        severity = view.facts["severity"]
        assert severity.shape == (CLIPS, 1, len(streams))
        names = list(streams)
        clean = torch.stack([take_segments(present[name], view.segments) for name in names], dim=-1)
        assert ((severity == 0) & clean).any(dim=-1).all()
        for number, name in enumerate(names):
            altered = view.streams.get(name, take_segments(streams[name], view.segments))
            same = (altered == take_segments(streams[name], view.segments)).flatten(1).all(dim=1)
            untouched = severity[:, 0, number] == 0
            assert same[untouched].all()
            dropped = clean[:, 0, number] & ~view.present[name][:, 0]
            assert (severity[dropped, 0, number] == 1).all()
        seen += (severity > 0).flatten(0, 1).sum(dim=0)
    # Sound is absent in one clip of eight; otherwise every modality is corrupted as often.
    rates = seen / torch.tensor([8.0, 8, 8, 7, 8]) / 60
    assert float(rates.max() - rates.min()) < 0.1
    assert 0.15 < float(rates.mean()) < 0.35
