"""Scenes: reproducible, drawn by the stated law, and written without loss."""

from dataclasses import replace

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.worlds.ceilings import ceilings
from modalgate.shards.worlds.factors import PRESETS, Law, symbols
from modalgate.shards.worlds.scene import CHILDREN, draw_scene, generator, scene_to_json
from scipy.stats import kstest

from .written_scene import scene_from_json

LAW = Law(rho=0.4, quality=0.8)


def test_a_scene_depends_on_seed_and_clip_only():
    assert draw_scene("impact12", 3, 7, LAW) == draw_scene("impact12", 3, 7, LAW)
    assert draw_scene("impact12", 3, 7).u != draw_scene("impact12", 3, 8).u != draw_scene("impact12", 4, 7).u


def test_child_streams_differ():
    heads = {tuple(generator(0, 0, child).random(3)) for child in CHILDREN}
    assert len(heads) == len(CHILDREN)


def test_the_law_changes_only_the_corruption():
    for clip in range(20):
        clean, spoiled = draw_scene("impact12", 0, clip), draw_scene("impact12", 0, clip, LAW)
        assert replace(spoiled, shown=clean.shown, z=clean.z, q=clean.q) == clean
        fewer = draw_scene("impact12", 0, clip, LAW, streams=("rgb", "depth", "audio"))
        assert {name: spoiled.shown[name] for name in fewer.shown} == fewer.shown


@pytest.mark.parametrize("preset", PRESETS)
def test_json_keeps_every_digit(preset):
    scene = draw_scene(preset, 2**62, 12345, LAW, graded=True)
    line = scene_to_json(scene)
    assert "\n" not in line
    assert scene_from_json(line) == scene


def test_corruption_draws_whole_classes_and_q_is_false_at_its_rate():
    scenes = [draw_scene("impact12", 1, clip, LAW) for clip in range(2500)]
    spoiled = [(scene, name) for scene in scenes for name in scene.z if scene.z[name]]
    assert len(spoiled) / 10000 == pytest.approx(0.4, abs=0.02)
    shown = np.bincount([scene.shown[name] for scene, name in spoiled], minlength=12) / len(spoiled)
    assert shown == pytest.approx(1 / 12, abs=0.018)
    same = np.mean([scene.shown[name] == scene.label for scene, name in spoiled])
    assert same == pytest.approx(1 / 12, abs=0.018)
    assert all(scene.shown[name] == scene.label for scene in scenes for name in scene.z if not scene.z[name])
    truth = np.mean([scene.q[name] == scene.z[name] for scene in scenes for name in scene.z])
    assert truth == pytest.approx(0.8, abs=0.02)


def test_drawn_scenes_reach_the_blind_ceiling():
    """The most frequent label for what two streams show, counted on one half of the scenes, tested on the other."""
    chosen, subset = PRESETS["impact12"], ("rgb", "audio")
    tables = {stream: symbols(chosen, stream, subset) for stream in subset}
    counts = np.zeros((12, 8, 8))
    scenes = [draw_scene("impact12", 2, clip, Law(rho=0.25)) for clip in range(8000)]
    cells = [tuple(tables[stream][scene.shown[stream]] for stream in subset) for scene in scenes]
    for scene, cell in zip(scenes[:4000], cells[:4000], strict=True):
        counts[scene.label][cell] += 1
    guess = counts.argmax(axis=0)
    accuracy = np.mean([guess[cell] == scene.label for scene, cell in zip(scenes[4000:], cells[4000:], strict=True)])
    assert accuracy == pytest.approx(ceilings("impact12", Law(rho=0.25))["rgb+audio"]["blind"], abs=0.03)


def test_bits_outside_the_table_are_shared_by_all_streams():
    scenes = [draw_scene("solo", 0, clip, LAW) for clip in range(200)]
    for scene in scenes:
        for bit in "MPTS":
            assert len({scene.factors(name)[bit] for name in scene.shown}) == 1
        assert scene.factors("audio")["S"] == 0
    assert 60 < sum(scene.bits["M"] for scene in scenes) < 140


def test_moments_of_strike_have_one_marginal_in_both_classes():
    scenes = [draw_scene("strike", 0, clip) for clip in range(4000)]
    contact = [scene for scene in scenes if scene.label == 0]
    others = [scene for scene in scenes if scene.label == 1]
    assert abs(len(contact) - 2000) < 3 * np.sqrt(1000)
    crossing = kstest([scene.moments[0] for scene in contact], [scene.moments[0] for scene in others])
    sounding = kstest([scene.moments[0] for scene in contact], [scene.moments[1] for scene in others])
    assert crossing.pvalue > 0.003  # pyright: ignore[reportAttributeAccessIssue]
    assert sounding.pvalue > 0.003  # pyright: ignore[reportAttributeAccessIssue]
    assert all(abs(a - b) > 0.35 and min(a, b) >= 0.6 and max(a, b) <= 2.4 for a, b in (s.moments for s in scenes))


def test_an_unknown_preset_is_refused():
    with pytest.raises(RequestError, match="did you mean 'strike'"):
        draw_scene("strikes", 0, 0)
