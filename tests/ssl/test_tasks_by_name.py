"""Pretext tasks by name: built, rejected, and equal on one and two processes."""

from dataclasses import replace

import pytest
import torch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS, build_pretext_task
from torch import Tensor

Ranks = list[dict[str, Tensor]]


@pytest.mark.parametrize("name", PRETEXT_TASKS)
def test_every_task_is_built_with_its_defaults_and_names_its_paper(name: str) -> None:
    task = build_pretext_task(name, ("rgb", "audio"), 8, 4, {})
    assert type(task) is PRETEXT_TASKS[name]
    assert task.reads[0] == "plain"
    document = type(task).__doc__ or ""
    assert "Shortcut" in document
    assert "20" in document or "ours" in document


@pytest.mark.parametrize("case", ["whole", "lopsided", "empty"])
@pytest.mark.parametrize("name", PRETEXT_TASKS)
def test_two_processes_equal_one_on_the_joined_batch(
    name: str, case: str, two_ranks: Ranks, one_process: dict[str, Tensor]
) -> None:
    expected = {key: value for key, value in one_process.items() if key.startswith(f"{name}.{case}.")}
    assert len(expected) == 4
    for found in two_ranks:
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9)
    assert all(bool(torch.isfinite(value).all()) for value in expected.values())
    if case == "whole":
        assert expected[f"{name}.whole.1.gradient"].norm() > 1e-6


def test_arguments_and_segments_reach_the_task() -> None:
    assert build_pretext_task("cross_modal", ("rgb", "audio"), 8, 3, {"temperature": 0.2}).temperature == 0.2
    assert len(build_pretext_task("clip_order", ("rgb",), 8, 4, {}).orders) == 24  # pyright: ignore
    clip = ClipSpec(0.75, 4, 32, 32, 8.0, 8000, 8.0, {})
    assert build_pretext_task("synchrony", ("rgb", "audio"), 8, 3, {"gap": 0.25}, clip).distance == 1.0
    with pytest.raises(RequestError, match=r"'offset' needs distances in seconds: set data.stretch=0"):
        build_pretext_task("offset", ("rgb", "audio"), 8, 3, {}, replace(clip, stretch=0.9))


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
        ("odd_one_out", ("rgb",), {}, "'odd_one_out' needs data.segments of at least 4, not 3"),
        ("gdt", ("rgb", "audio"), {"shift": "invarant"}, "did you mean 'invariant'"),
        ("pace", ("rgb", "audio"), {"streams": ["audio"]}, "unknown modality of a pretext task 'audio'"),
    ],
)
def test_invalid_class_or_argument_is_named(
    name: str, modalities: tuple[str, ...], arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        build_pretext_task(name, modalities, 8, 3, arguments)
