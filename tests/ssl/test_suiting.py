"""Tasks restricted to the present modalities."""

from itertools import combinations

import pytest
from modalgate.shards.errors import RequestError
from modalgate.ssl.suiting import suit_task
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS, build_pretext_task

SOUND, MOTION = ["rgb", "audio"], ["rgb", "flow"]


def test_missing_modalities_are_dropped_from_arguments() -> None:
    for name, arguments, modalities, suited, dropped in (
        ("clip_order", {"streams": ["fused", "rgb", "flow"]}, ["rgb"], {"streams": ["fused", "rgb"]}, ["flow"]),
        ("clip_order", {"dropout": 0.2}, ["audio"], {"dropout": 0.2}, []),
        ("across_time", {"streams": ["flow", "audio"]}, ["rgb", "flow"], {"streams": ["flow"]}, ["audio"]),
        ("cross_modal", {"pairs": [SOUND, MOTION]}, ["rgb", "flow"], {"pairs": [MOTION]}, ["audio"]),
        ("cross_modal", {"pairs": [["rgb", "fused"]]}, ["rgb", "flow"], {"pairs": [["rgb", "fused"]]}, []),
        # An unknown modality: the task names the nearest one.
        ("clip_order", {"streams": ["rbg"]}, ["rgb"], {"streams": ["rbg"]}, []),
    ):
        found = suit_task(name, arguments, modalities)
        assert (found.arguments, found.dropped, found.problem) == (suited, dropped, "")


def test_problem_is_stated_if_no_modality_remains() -> None:
    for name, arguments, modalities, said in (
        ("correspondence", {}, ["rgb"], "only rgb"),
        ("across_time", {"streams": ["flow", "audio"]}, ["rgb"], "flow, audio"),
        ("cross_modal", {"pairs": [["rgb", "audio"]]}, ["rgb", "flow"], "audio"),
        ("cross_modal", {"anchor": "audio"}, ["rgb", "flow"], "'audio'"),
        ("pace", {}, ["audio", "inertial"], "video"),
    ):
        assert said in suit_task(name, arguments, modalities).problem


def test_suited_tasks_build_on_every_subset() -> None:
    """With default arguments. A task with a problem cannot be built."""
    for name in PRETEXT_TASKS:
        for count in range(1, 4):
            for modalities in combinations(("rgb", "audio", "inertial"), count):
                found = suit_task(name, {}, modalities)
                assert bool(found.problem) == (
                    (count == 1 and not PRETEXT_TASKS[name].alone) or (name == "pace" and "rgb" not in modalities)
                )
                if not found.problem:
                    build_pretext_task(name, modalities, 8, 4, found.arguments)
                elif name != "pace":
                    with pytest.raises(RequestError):
                        build_pretext_task(name, modalities, 8, 4, {})
