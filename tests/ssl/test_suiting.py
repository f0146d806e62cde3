"""Tasks restricted to the present modalities."""

from itertools import combinations
from typing import Any

import pytest
from modalgate.shards.errors import RequestError
from modalgate.ssl.suiting import suit_task
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS, build_pretext_task

SOUND, MOTION = ["rgb", "audio"], ["rgb", "flow"]


@pytest.mark.parametrize(
    ("name", "arguments", "modalities", "suited", "dropped"),
    [
        ("clip_order", {"streams": ["fused", "rgb", "flow"]}, ["rgb"], {"streams": ["fused", "rgb"]}, ["flow"]),
        ("clip_order", {"dropout": 0.2}, ["audio"], {"dropout": 0.2}, []),
        ("across_time", {"streams": ["flow", "audio"]}, ["rgb", "flow"], {"streams": ["flow"]}, ["audio"]),
        ("cross_modal", {"pairs": [SOUND, MOTION]}, ["rgb", "flow"], {"pairs": [MOTION]}, ["audio"]),
        ("cross_modal", {"pairs": [["rgb", "fused"]]}, ["rgb", "flow"], {"pairs": [["rgb", "fused"]]}, []),
        # An unknown modality: the task names the nearest one.
        ("clip_order", {"streams": ["rbg"]}, ["rgb"], {"streams": ["rbg"]}, []),
    ],
)
def test_missing_modalities_are_dropped_from_arguments(
    name: str, arguments: dict[str, Any], modalities: list[str], suited: dict[str, Any], dropped: list[str]
) -> None:
    found = suit_task(name, arguments, modalities)
    assert (found.arguments, found.dropped, found.problem) == (suited, dropped, "")


@pytest.mark.parametrize(
    ("name", "arguments", "modalities", "said"),
    [
        ("correspondence", {}, ["rgb"], "only rgb"),
        ("across_time", {"streams": ["flow", "audio"]}, ["rgb"], "flow, audio"),
        ("cross_modal", {"pairs": [["rgb", "audio"]]}, ["rgb", "flow"], "audio"),
        ("cross_modal", {"anchor": "audio"}, ["rgb", "flow"], "'audio'"),
        ("pace", {}, ["audio", "inertial"], "video"),
    ],
)
def test_problem_is_stated_if_no_modality_remains(
    name: str, arguments: dict[str, Any], modalities: list[str], said: str
) -> None:
    assert said in suit_task(name, arguments, modalities).problem


@pytest.mark.parametrize("name", PRETEXT_TASKS)
def test_suited_tasks_build_on_every_subset(name: str) -> None:
    """With default arguments. A task with a problem cannot be built."""
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
