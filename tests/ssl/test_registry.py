"""Pretext tasks by name."""

import pytest
from modalgate.shards.errors import RequestError
from modalgate.ssl.registry import PRETEXT_TASKS, build_task


@pytest.mark.parametrize("name", PRETEXT_TASKS)
def test_every_task_is_built_with_its_defaults(name: str) -> None:
    task = build_task(name, ("rgb", "audio"), 8, 3, {})
    assert type(task) is PRETEXT_TASKS[name]
    assert task.views == ("plain",)


def test_arguments_and_segments_reach_the_task() -> None:
    assert build_task("cross_modal", ("rgb", "audio"), 8, 3, {"temperature": 0.2}).temperature == 0.2
    assert len(build_task("clip_order", ("rgb",), 8, 4, {}).orders) == 24  # pyright: ignore


@pytest.mark.parametrize(
    ("name", "modalities", "arguments", "message"),
    [
        ("clip_oder", ("rgb",), {}, "unknown pretext task 'clip_oder': did you mean 'clip_order'"),
        (
            "cross_modal",
            ("rgb", "audio"),
            {"temprature": 1},
            "task cross_modal 'temprature': did you mean 'temperature'",
        ),
        ("cross_modal", ("rgb", "audio"), {"width": 1}, "unknown argument of task cross_modal 'width'"),
        ("clip_order", ("rgb",), {"segments": 3}, "unknown argument of task clip_order 'segments'"),
        ("cross_modal", ("rgb",), {}, "'cross_modal' compares modalities: give at least two, not rgb"),
        ("correspondence", ("audio",), {}, "'correspondence' compares modalities: give at least two, not audio"),
    ],
)
def test_what_is_wrong_is_named(
    name: str, modalities: tuple[str, ...], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        build_task(name, modalities, 8, 3, arguments)
