"""The renderer shows in each stream its own bits and no others, in time with each other, and reproducibly."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.worlds.factors import PRESETS, Law, carried_bits
from modalgate.shards.worlds.render import (
    FPS,
    FRAMES,
    SAMPLE_RATE,
    SIZE,
    body_radius,
    contact_times,
    render,
    strike_period,
)
from modalgate.shards.worlds.scene import draw_scene, generator, scene_to_json
from sklearn.metrics import roc_auc_score

from .written_scene import scene_from_json

ALL = ("rgb", "flow", "depth", "audio")


def scenes_of(preset, count, law=None, seed=0, streams=ALL):
    return [draw_scene(preset, seed, clip, law, streams=streams) for clip in range(count)]


def showing(scene, **bits):
    """The scene with other nuisance bits."""
    return replace(scene, bits=scene.bits | bits)


def same(first, second, stream):
    return np.array_equal(getattr(first, stream), getattr(second, stream))


def body_mask(clip):
    """Depth pixels well in front of the wall."""
    wall = 0.9 - 0.1 * np.arange(SIZE) / SIZE
    return clip.depth / 4000 < wall[:, None] - 0.06


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_and_ranges(preset):
    clip = render(draw_scene(preset, 0, 0, streams=ALL))
    assert (clip.rgb.shape, clip.rgb.dtype) == ((FRAMES, SIZE, SIZE, 3), np.uint8)
    assert (clip.depth.shape, clip.depth.dtype) == ((FRAMES, SIZE, SIZE), np.uint16)
    assert (clip.flow.shape, clip.flow.dtype) == ((FRAMES, 2, SIZE, SIZE), np.float32)
    assert (clip.audio.shape, clip.audio.dtype) == ((FRAMES * 500,), np.float32)
    assert 500 < clip.depth.min() < clip.depth.max() < 4000
    assert np.abs(clip.flow).max() < 16


def test_absent_streams_stay_absent():
    clip = render(draw_scene("solo", 0, 0))
    assert clip.flow is None
    assert clip.rgb is not None


@pytest.mark.parametrize("preset", ["impact12", "strike"])
def test_a_scene_read_back_renders_to_the_last_bit(preset):
    for scene in scenes_of(preset, 3, Law(rho=0.5)):
        first, second = render(scene), render(scene_from_json(scene_to_json(scene)))
        assert all(same(first, second, stream) for stream in ALL)


def test_a_stream_changes_only_with_its_own_symbol():
    """A corrupted stream with the same symbol equals the clean one to the last bit; with another it differs."""
    chosen, kinds = PRESETS["impact12"], set()
    for clip in range(12):
        clean = replace(draw_scene("impact12", 0, clip), label=clip, shown=dict.fromkeys(ALL, clip))
        other = (clip + 2 + clip % 3) % 12
        spoiled = replace(clean, z=dict.fromkeys(ALL, 1), shown=dict.fromkeys(ALL, other))
        seen, lied = render(clean), render(spoiled)
        for stream in ALL:
            bits = [chosen.bits.index(bit) for bit in carried_bits(chosen, stream, ALL)]
            equal = all(chosen.table[clip][bit] == chosen.table[other][bit] for bit in bits)
            assert same(seen, lied, stream) == equal
            kinds.add((stream, equal))
    assert kinds >= {
        ("flow", True),
        ("flow", False),
        ("rgb", True),
        ("rgb", False),
        ("audio", False),
        ("depth", True),
    }


def test_corruption_of_a_stream_changes_no_other():
    scene = draw_scene("impact12", 0, 5)
    clean = render(scene)
    for stream in ALL:
        spoiled = render(replace(scene, shown=scene.shown | {stream: (scene.label + 6) % 12}))
        assert all(same(clean, spoiled, other) for other in ALL if other != stream)


def test_every_contact_has_the_same_energy():
    """At a slow pace no ring reaches the next: the energy between two contacts is the same for all sounds."""
    energies = {}
    for scene in scenes_of("solo", 24):
        for size in (0, 1):
            quiet = showing(replace(scene, gain=1.0, floor=0.0), P=size, T=0)
            sound, times = render(quiet).audio.astype(np.float64), contact_times(quiet)
            edges = np.ceil(times * SAMPLE_RATE).astype(int)
            for begin, end in pairwise(edges):
                if begin >= 0:
                    key = (quiet.factors("audio")["A"], size)
                    energies.setdefault(key, []).append(float(sound[begin:end] @ sound[begin:end]))
    assert len(energies) == 4
    every = np.concatenate(list(energies.values()))
    assert every == pytest.approx(every[0], rel=1e-3)


def test_sound_never_clips():
    loud = [showing(replace(scene, gain=10**0.3), T=1) for scene in scenes_of("solo", 60, streams=("audio",))]
    assert max(np.abs(render(scene).audio).max() for scene in loud) < 1


def test_pitch_shows_the_size_and_in_pretraining_its_degree():
    for scene in scenes_of("solo", 12, streams=("audio",)):
        for size, (low, high) in enumerate([(700, 900), (300, 400)]):
            for graded in (False, True):
                one = showing(replace(scene, floor=0.0, graded=graded), P=size)
                spectrum = np.abs(np.fft.rfft(render(one).audio, 8 * SAMPLE_RATE))
                peak = 100 + spectrum[800:8000].argmax() / 8
                if graded:
                    assert peak == pytest.approx(900 * (4 / body_radius(one, {"P": size})) ** 1.3, rel=0.03)
                else:
                    assert low * 0.98 < peak < high * 1.02


def onset_frames(clip):
    """Frames in which the sound rises suddenly, found from the sound alone."""
    power = (clip.audio.reshape(-1, 50) ** 2).sum(axis=1)
    rises = power[4:] > 8 * np.maximum(np.max([power[lag : lag - 4] for lag in range(4)], axis=0), 1e-5)
    found = np.flatnonzero(rises) + 4
    return [one / 10 for one, before in zip(found, [-99, *found], strict=False) if one - before > 10]


@pytest.mark.parametrize("late", [0, 1])
def test_sound_is_at_the_contact_or_half_a_period_later(late):
    """From the recordings alone: the body's position in its stroke when it sounds."""
    heights = []
    for scene in scenes_of("duet", 24):
        scene = showing(replace(scene, floor=0.001, shown=dict.fromkeys(ALL, late)), A=0, Z=1)
        clip = render(scene)
        mask = body_mask(clip)
        lowest = np.array([np.flatnonzero(frame.any(axis=1)).max() for frame in mask])
        span = (lowest - lowest.min()) / (lowest.max() - lowest.min())
        heights += [span[round(frame)] for frame in onset_frames(clip) if round(frame) < FRAMES]
    assert len(heights) > 60
    # 1 at the floor. Half a period later the slow rise has reached sin(pi/2 x .5/.7) = .90 of its height.
    assert np.median(heights) == pytest.approx(0.1 if late else 1.0, abs=0.12)
    assert np.mean(np.array(heights) > 0.5) == pytest.approx(1 - late, abs=0.05)


def test_pace_is_the_period_of_the_contacts():
    for scene in scenes_of("chorus", 20):
        period = strike_period(scene, scene.factors("audio"))
        low, high = (0.45, 0.57) if scene.factors("audio")["T"] else (0.75, 0.95)
        assert low <= period <= high
        assert np.diff(contact_times(scene)) == pytest.approx(period)


def test_depth_area_shows_the_size_but_flow_area_does_not():
    scenes = scenes_of("chorus", 240)
    size = np.array([scene.factors("flow")["P"] for scene in scenes])
    clips = [render(replace(scene, shown={"flow": scene.label, "depth": scene.label})) for scene in scenes]
    moving = [np.any(clip.flow != 0, axis=1) for clip in clips]
    area = [mask.mean() for mask in moving]
    row = [(mask * np.arange(SIZE)[:, None]).sum() / mask.sum() for mask in moving]
    chance = 3 * np.sqrt((len(size) + 1) / (12 * size.sum() * (len(size) - size.sum())))
    assert roc_auc_score(size, area) == pytest.approx(0.5, abs=chance)
    assert roc_auc_score(size, row) == pytest.approx(0.5, abs=chance)
    assert roc_auc_score(size, [body_mask(clip).mean() for clip in clips]) > 0.97


def test_one_frame_carries_no_direction_and_two_do():
    """Any frame of a body that drifts left also occurs when it drifts right, from an equally likely start."""
    for scene in scenes_of("solo", 4, streams=ALL):
        speed, frame = 14 + 8 * scene.u[2], 20
        right = showing(scene, M=1)
        left = replace(showing(scene, M=0), x0=(scene.x0 + 2 * speed * frame / FPS) % SIZE)
        first, second = render(right), render(left)
        assert np.mean(first.rgb[frame] != second.rgb[frame]) < 0.005
        assert np.mean(first.depth[frame] != second.depth[frame]) < 0.005
        assert np.mean(first.rgb[frame + 3] != second.rgb[frame + 3]) > 0.01
        assert first.flow[:, 0].max() > 0.5
        assert first.flow[:, 0].min() == 0
        assert second.flow[:, 0].min() < -0.5


def test_depth_shows_approach_at_constant_size():
    for scene in scenes_of("solo", 8, streams=ALL):
        clip = render(scene)
        mask = body_mask(clip)
        distance = [np.median(frame[inside]) for frame, inside in zip(clip.depth, mask, strict=True)]
        slope = np.polyfit(np.arange(FRAMES) / FPS, distance, 1)[0] / 4000
        assert slope == pytest.approx(
            (-1 if scene.factors("depth")["Z"] else 1) * (0.09 + 0.02 * scene.u[4]), abs=0.01
        )


def test_stripes_are_vertical_or_horizontal():
    for scene in scenes_of("solo", 8, streams=ALL):
        scene = showing(scene, P=1)
        clip = render(scene)
        mask = body_mask(clip)
        light = clip.rgb.mean(axis=3)
        across = np.abs(np.diff(light, axis=2))[mask[:, :, 1:] & mask[:, :, :-1]].mean()
        down = np.abs(np.diff(light, axis=1))[mask[:, 1:] & mask[:, :-1]].mean()
        assert (down > 2 * across) if scene.factors("rgb")["V"] else (across > 2 * down)


def test_flow_moves_the_disc_to_its_next_place():
    scene = draw_scene("solo", 0, 3, streams=ALL)
    flow = render(scene).flow
    for frame in range(FRAMES - 1):
        here, there = (np.any(flow[one] != 0, axis=0) for one in (frame, frame + 1))
        if here[:, [0, -1]].any() or there[:, [0, -1]].any():
            continue
        centres = [np.argwhere(mask).mean(axis=0) for mask in (here, there)]
        dx, dy = (flow[frame, channel][here].mean() for channel in (0, 1))
        assert centres[1] - centres[0] == pytest.approx([dy, dx], abs=0.35)


def test_strike_pictures_are_the_same_for_contact_and_pass():
    for clip in range(6):
        scene = draw_scene("strike", 0, clip)
        contact, other = (render(replace(scene, shown=dict.fromkeys(ALL, label))) for label in (0, 1))
        assert same(contact, other, "rgb")
        assert same(contact, other, "flow")
        assert not same(contact, other, "depth")
        assert not same(contact, other, "audio")


def crossing_frame(across):
    """The frame in which two discs that meet and part are closest, both completely inside the picture."""
    both = [(frame > 0).any() and (frame < 0).any() for frame in across]
    spans = {}
    for frame in range(1, FRAMES - 1):
        columns = np.flatnonzero(np.any(across[frame] != 0, axis=0))
        if both[frame - 1] and both[frame + 1] and columns.min() > 0 and columns.max() < SIZE - 1:
            spans[frame] = columns.max() - columns.min()
    return min(spans, key=lambda frame: spans[frame])


def test_strike_sounds_at_the_crossing_only_for_contact():
    for clip in range(10):
        scene = replace(draw_scene("strike", 0, clip), floor=0.001)
        recorded = render(scene)
        (sounded,) = onset_frames(recorded)
        crossed = scene.moments[0] * FPS
        assert abs(crossing_frame(recorded.flow[:, 0]) - crossed) <= 1
        assert (abs(sounded - crossed) < 0.5) == (scene.label == 0)
        planes = recorded.depth[body_mask(recorded)]
        spread = np.std(planes) / 4000
        assert (spread < 0.02) == (scene.label == 0)


def twins_of(twin, count=40):
    """Clips of a world with almost no sensor noise, each with its twin."""
    for clip in range(count):
        plain = draw_scene("solo", 5, clip, streams=ALL)
        yield plain, draw_scene("solo", 5, clip, streams=ALL, twin=twin)


def test_nothing_moves_in_the_twin_without_pace():
    for plain, twin in twins_of("pace", 5):
        moving, still = render(plain), render(twin)
        assert np.ptp(still.depth.astype(float).mean(axis=(1, 2))) < np.ptp(
            moving.depth.astype(float).mean(axis=(1, 2))
        )
        grain = np.diff(still.rgb.astype(float), axis=0).std()
        assert grain == pytest.approx(0.02 * 255 * np.sqrt(2), rel=0.1)
        assert not still.flow.any()
        assert moving.flow.any()


def test_bodies_rise_as_fast_as_they_fall_in_the_twin_without_direction():
    rising = {"": [], "direction": []}
    for scenes in twins_of("direction"):
        for scene in scenes:
            vertical = render(scene).flow[:, 1].mean(axis=(1, 2))
            rising[scene.twin].append((vertical < 0).mean())
    # Seven tenths of a period, minus the steps across a contact.
    assert 0.6 < np.mean(rising[""]) < 0.7
    assert np.mean(rising["direction"]) == pytest.approx(0.5, abs=0.03)


def test_rings_swell_as_they_fade_in_the_twin_without_direction():
    for plain, twin in twins_of("direction", 10):
        for scene, symmetric in ((plain, False), (twin, True)):
            scene = replace(showing(scene, T=0), floor=0.0, shown=scene.shown)
            sound, contact = render(scene).audio, next(t for t in contact_times(scene) if t > 0.5)
            middle, reach = round(contact * SAMPLE_RATE), 300
            before, after = (
                float(np.square(sound[part]).sum())
                for part in (slice(middle - reach, middle), slice(middle, middle + reach))
            )
            assert (0.5 < before / after < 2) == symmetric


def test_seconds_have_no_order_in_the_twin_without_it():
    """In the world the body approaches or recedes from second to second; in the twin it does neither."""
    trend = {"": [], "order": []}
    for scenes in twins_of("order"):
        for scene in scenes:
            clip = render(replace(scene, bits=scene.bits))
            where = [clip.depth[second * FPS : (second + 1) * FPS] for second in range(3)]
            near = [np.percentile(part, 2) for part in where]
            way = 1 if not scene.factors("depth")["Z"] else -1
            trend[scene.twin].append(way * (near[2] - near[0]))
    assert np.mean(np.array(trend[""]) > 0) > 0.95
    assert 0.3 < np.mean(np.array(trend["order"]) > 0) < 0.7


def test_the_sound_keeps_its_period_at_another_phase_in_the_twin_without_synchrony():
    for plain, twin in twins_of("synchrony", 10):
        one, other = render(plain), render(twin)
        assert same(one, other, "rgb")
        assert same(one, other, "depth")
        assert not same(one, other, "audio")


def test_the_twin_without_alignment_lacks_direction_and_synchrony():
    for plain, twin in twins_of("alignment", 10):
        one, other = (render(replace(plain, twin="direction")), render(twin))
        assert same(one, other, "rgb")
        assert same(one, other, "flow")
        assert not same(one, other, "audio")
        # The sound is that of the twin without direction, with its contacts at another phase.
        phase = float(generator(plain.seed, plain.clip, "twin").random())
        assert same(render(replace(plain, twin="direction", phase0=phase)), other, "audio")


def walls(clip, frames):
    """The wall's shade, and its distance relative to an even wall, as in most of the frames."""
    return np.median(clip.rgb[frames].mean(axis=-1), axis=0), beyond_even(clip.depth[frames])


def beyond_even(depth):
    """How much farther the wall is than an even wall, as in most frames."""
    return np.median(depth, axis=0) / 4000 - (0.9 - 0.1 * np.arange(SIZE)[:, None] / SIZE)


def likeness(first, second):
    return np.corrcoef(first[:16].ravel(), second[:16].ravel())[0, 1]


def test_bright_boards_are_nearer_at_any_two_moments():
    for scene in scenes_of("place", 12):
        clip = render(scene)
        shade, _ = walls(clip, slice(FPS))
        _, beyond = walls(clip, slice(-FPS, None))
        assert likeness(shade, beyond) < -0.9
    for scene in scenes_of("solo", 12):
        shade, beyond = walls(render(scene), slice(None))
        assert abs(likeness(shade, beyond)) < 0.3


def test_boards_have_any_angle_and_many_widths():
    peaks = set()
    for scene in scenes_of("place", 40, streams=("depth",)):
        wave = np.fft.fft2(beyond_even(render(scene).depth))
        row, column = np.unravel_index(np.abs(wave[:, : SIZE // 2]).argmax(), (SIZE, SIZE // 2))
        peaks.add((int(row), int(column)))
        # A peak is in the nearest bin of width 1 / SIZE, or in the next one.
        waves = np.hypot(np.fft.fftfreq(SIZE)[row], np.fft.fftfreq(SIZE)[column])
        assert 1 / 18 - 1 / SIZE < waves < 1 / 6 + 1 / SIZE
    assert len(peaks) > 25


def test_distances_come_from_another_scene_in_the_twin_without_pairing():
    large, areas, trend = [], {"": [], "pairing": []}, []
    for scenes in twins_of("pairing", 80):
        one, other = map(render, scenes)
        assert same(one, other, "rgb")
        assert same(one, other, "audio")
        large.append(scenes[0].bits["P"])
        for scene, clip in zip(scenes, (one, other), strict=True):
            areas[scene.twin].append(body_mask(clip).mean())
        way = 1 if not scenes[1].factors("depth")["Z"] else -1
        trend.append(way * (np.percentile(other.depth[-8:], 1) - np.percentile(other.depth[:8], 1)))
    assert roc_auc_score(large, areas[""]) == 1
    assert 0.3 < roc_auc_score(large, areas["pairing"]) < 0.7
    assert np.mean(np.array(trend) > 0) > 0.9, "the label's own cue stays"


def test_boards_come_from_another_wall_in_the_twin_without_pairing():
    twins = [replace(scene, twin="pairing") for scene in scenes_of("place", 24)]
    assert np.mean([abs(likeness(*walls(render(twin), slice(None)))) for twin in twins]) < 0.25


def test_unknown_twins_are_refused():
    with pytest.raises(RequestError, match="did you mean 'order'"):
        draw_scene("solo", 0, 0, twin="ordr")
    with pytest.raises(RequestError, match="no twins"):
        draw_scene("strike", 0, 0, twin="order")


def test_all_clips_of_a_fixed_camera_have_the_same_wall():
    def corner(preset, seed):
        # The median over time: no disc covers a pixel for long.
        pictures = [render(scene).rgb for scene in scenes_of(preset, 3, seed=seed, streams=("rgb",))]
        return np.stack([np.median(rgb[:, :8], axis=0) for rgb in pictures])

    fixed, other, free = corner("melee", 0), corner("melee", 1), corner("impact12", 0)
    assert np.abs(fixed - fixed[0]).mean() < 3
    assert np.abs(fixed[0] - other[0]).mean() > 8
    assert np.abs(free[1:] - free[0]).mean() > 8
