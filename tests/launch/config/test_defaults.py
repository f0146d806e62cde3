"""Settings chosen from the shards: windows, networks, tasks and length, for all kinds of footage."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from modalgate.fusion.spec import PRESETS, BackboneSpec, EncoderSpec, encoder_of
from modalgate.launch.config import defaults
from modalgate.launch.config.defaults import STACK, choose, describe, nested, picture_side
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import Index, Sample, Shard, Statistics
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.modality import modality
from modalgate.shards.packing.pack import pack


def index(
    seconds: float = 2.0, clips: int = 100, names: tuple[str, ...] = ("rgb", "flow"), **columns: list[str]
) -> Index:
    """An index of `clips` clips around `seconds` long; `columns` are repeated over the clips."""
    samples = tuple(
        Sample(
            f"c{number}",
            "shard-000000.tar",
            seconds * (0.9 + 0.2 * (number % 2)),
            {name: values[number % len(values)] for name, values in columns.items()},
            {modality(name).suffix: (0, 1) for name in names},
        )
        for number in range(clips)
    )
    shard = Shard("shard-000000.tar", clips, 1, "", dict.fromkeys(names, clips))
    statistics = {name: Statistics((0.0,), (1.0,)) for name in names}
    return Index(PackSettings(names), statistics, (shard,), samples, folder=Path("shards"))


@pytest.fixture(autouse=True)
def no_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clips of `index` have members but no files: their pictures are as large as the settings say."""

    def side(clips: Index, names: tuple[str, ...]) -> int:
        return (
            picture_side(clips, names) if (Path(str(clips.folder)) / "index.json").is_file() else clips.settings.size
        )

    monkeypatch.setattr(defaults, "picture_side", side)


def chosen(kind: str, clips: Index, given: dict | None = None, start: ClipSpec | None = None) -> dict:
    return {choice.key: choice.value for choice in choose(kind, clips, given or {}, start)}


def test_short_silent_clips_are_covered_completely():
    found = chosen("finetune", index(2.0))
    assert found["data.stretch"] == pytest.approx(0.9)
    assert found["data.seconds"] == pytest.approx(1.8)
    assert found["data.segments"] == 1


def test_sound_is_never_stretched():
    found = chosen("finetune", index(2.0, names=("rgb", "flow", "audio")))
    assert found["data.stretch"] == 0
    assert found["data.seconds"] == pytest.approx(1.8)


def test_long_clips_are_cut_into_windows_at_original_speed():
    found = chosen("finetune", index(25.0))
    assert (found["data.stretch"], found["data.seconds"], found["data.segments"]) == (0, 3.0, 2)


def test_frames_divide_into_stacks():
    for seconds in (0.3, 1.0, 2.3, 5.9, 6.1, 30.0):
        for kind in ("pretrain", "finetune"):
            found = chosen(kind, index(seconds))
            assert found["data.frames"] % STACK == 0
            assert found["data.seconds"] > 0


@pytest.mark.parametrize("names", [("rgb", "flow"), ("rgb", "flow", "audio")])
def test_pretraining_sees_the_frames_at_the_speed_of_fine_tuning(names: tuple[str, ...]):
    pretraining, finetuning = (chosen(kind, index(3.0, names=names)) for kind in ("pretrain", "finetune"))
    speeds = [found["data.frames"] / found["data.seconds"] for found in (pretraining, finetuning)]
    assert speeds[0] == pytest.approx(speeds[1], rel=0.01)
    # Three windows that do not overlap fit into a clip.
    assert 3 * (pretraining["data.stretch"] * 3.0 or pretraining["data.seconds"]) <= 3.0


def test_a_fine_tuning_keeps_the_speed_and_size_of_its_encoder():
    start = ClipSpec(0.8, 8, 48, 112, 15.0, 16000, 14.0, {})
    found = chosen("finetune", index(3.0, names=("rgb", "flow", "audio")), start=start)
    assert found["data.frames"] % 8 == 0
    assert found["data.frames"] / found["data.seconds"] == pytest.approx(10.0, rel=0.01)
    assert found["data.size"] == 48
    assert not [key for key in found if key.startswith("model.")]


def test_pictures_are_never_enlarged_and_frames_never_invented():
    small = index(3.0)
    small = replace(small, settings=replace(small.settings, size=32, fps=4.0))
    found = chosen("finetune", small)
    assert found["data.size"] == 32
    assert found["data.frames"] <= 2 * STACK


def test_labels_with_a_direction_disable_mirroring():
    for value, flip in (
        ("fight", True),
        ("swipe left", False),
        ("turn-right", False),
        ("draw_circle_ccw", False),
        ("clockwise", False),
    ):
        assert chosen("finetune", index(label=["rest", value]))["augment.flip"] is flip


def test_words_containing_a_direction_keep_mirroring():
    for value in ("bright", "cleft", "leftover", "copyright"):
        assert chosen("finetune", index(label=["rest", value]))["augment.flip"] is True


def test_single_modality_is_pretrained_with_temporal_tasks():
    tasks = chosen("pretrain", index(names=("rgb",)))["tasks"]
    assert set(tasks) == {"across_time", "clip_order"}
    assert tasks["clip_order"]["arguments"]["streams"] == ["rgb"]
    assert set(chosen("pretrain", index(names=("audio",)))["tasks"]) == {"across_time"}
    assert "leave_one_out" in chosen("pretrain", index(names=("depth", "inertial")))["tasks"]


def test_given_settings_are_kept():
    given = {"data": {"seconds": 0.7, "modalities": ["flow"]}, "tasks": {"pace": {}}, "train": {"epochs": 3}}
    found = chosen("pretrain", index(), given)
    assert not {"data.seconds", "tasks", "train.steps", "train.epochs"} & set(found)
    assert {"data.frames", "train.learning_rate"} <= set(found)


def test_stacks_divide_given_frames():
    for frames, stack in ((6, 6), (9, 3), (16, 8), (7, 7), (11, 1)):
        assert chosen("pretrain", index(), {"data": {"frames": frames}})["model.encoders.video"]["stack"] == stack


def test_given_encoders_are_kept():
    own = {"model": {"encoders": {"video": {"model": "timm/resnet18"}}}}
    assert not [key for key in chosen("pretrain", index(), own) if key.startswith("model.encoders")]


def test_multilabel_uses_one_head():
    assert "decision" not in chosen("finetune", index(), {"task": "multilabel"})


def test_validation_clips_of_a_given_split_fit_the_gate():
    split = ["train"] * 6 + ["val"] * 2 + ["test"] * 2
    found = chosen("finetune", index(clips=1000, split=split))
    assert (found["decision"], found["hold_out"]) == ("reliability", True)
    assert "cross_fit" not in found
    # Too few to fit it, or not used where folds divide the clips.
    assert "hold_out" not in chosen("finetune", index(clips=300, split=split))
    assert "hold_out" not in chosen("finetune", index(clips=1000, split=split), {"data": {"folds": 3}})


def test_two_more_models_fit_the_gate_where_the_steps_allow():
    """A model of 100 clips trains 200 steps: twice three folds stay within 1200 steps, twice five do not."""
    one, three, five = (
        {choice.key: choice.value for choice in choose("finetune", index(), {}, None, 100, models)}
        for models in (1, 3, 5)
    )
    for few in (one, three):
        assert (few["decision"], few["cross_fit"]) == ("reliability", 2)
    assert five["decision"] == "mean"
    assert "cross_fit" not in five


def test_a_given_choice_of_evidence_is_kept():
    for given, decision in (
        ({"cross_fit": 4}, "reliability"),
        ({"hold_out": True}, "mean"),
        ({"cross_fit": 0}, "mean"),
    ):
        found = chosen("finetune", index(), given)
        assert found["decision"] == decision
        assert not set(given) & set(found)


@pytest.mark.parametrize("models", [1, 3])
def test_aids_disable_the_gate_which_trains_without_them(models: int):
    split = index(clips=1000, split=["train"] * 6 + ["val"] * 2 + ["test"] * 2)
    for clips in (index(), split):
        found = [choose("finetune", clips, {"aids": aids}, None, 100, models) for aids in ({"modulation": 0.5}, {})]
        aided, plain = ({choice.key: choice.value for choice in row} for row in found)
        assert aided["decision"] == "mean"
        assert not {"cross_fit", "hold_out"} & set(aided)
        assert plain["decision"] == "reliability"


def test_given_fusion_disables_the_default_decision():
    assert "decision" in chosen("finetune", index())
    assert "decision" not in chosen("finetune", index(), {"model": {"fusion": "softmax"}})
    assert "decision" not in chosen("finetune", index(names=("rgb",)))


def test_of_two_classes_the_event_is_detected():
    for names, event in (
        (("fight", "noFight"), "fight"),
        (("fight", "nofight"), "fight"),
        (("NonViolence", "Violence"), "Violence"),
        (("fall", "no_fall"), "fall"),
        (("0", "1"), "1"),
        (("north", "south"), None),
        (("nod", "shake"), None),
        (("normal", "nothing"), None),
        (("fight", "noFight", "run"), None),
    ):
        found = chosen("finetune", index(label=list(names)))
        assert found.get("positive") == event
        assert found.get("task") == (None if event is None else "violence")
        assert "positive" not in chosen("finetune", index(label=list(names)), {"task": "action"})


def test_length_and_batch_size_follow_the_number_of_clips():
    for clips in (2, 5, 40, 300, 20_000):
        found = chosen("finetune", index(clips=clips))
        assert 2 <= found["data.batch_size"] <= max(clips, 2)
        assert 200 <= found["train.steps"] <= max(400, clips)


def test_the_models_of_folds_share_the_steps():
    many = ("rgb", "flow", "depth", "audio", "inertial")
    for modalities, frames, expected in (
        (1, 24, 1200),
        (3, 24, 1200),
        (3, 32, 900),
        (4, 24, 900),
        (4, 32, 900),
        (5, 32, 720),
    ):
        for models in (1, 3):
            given = {"data": {"frames": frames}}
            choices = choose("finetune", index(clips=2000, names=many[:modalities]), given, None, 2000, models)
            steps = next(choice.value for choice in choices if choice.key == "train.steps")
            assert steps == expected / models, (modalities, frames, models)


@pytest.mark.parametrize("names", [("rgb",), ("flow",), ("rgb", "flow")])
def test_picture_size_is_that_of_the_packed_pictures(tmp_path: Path, names: tuple[str, ...]):
    frames = np.zeros((8, 24, 40, 3), np.uint8)
    (tmp_path / "media").mkdir()
    write_video(tmp_path / "media" / "small.mp4", frames, 8.0)
    packed = pack(tmp_path / "media", tmp_path / "shards", PackSettings(names), workers=1)
    assert picture_side(packed, names) == 24
    assert chosen("pretrain", packed)["data.size"] == 24


def test_sizes_by_name():
    assert chosen("finetune", index(), {"model": {"preset": "small"}})["model.width"] == 256
    with pytest.raises(RequestError, match=r"model\.preset.*tiny"):
        choose("finetune", index(), {"model": {"preset": "tinny"}})


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
@pytest.mark.parametrize("name", PRESETS)
def test_networks_are_those_of_the_preset(kind: str, name: str):
    found = nested(choose(kind, index(names=("rgb", "audio", "inertial")), {"model": {"preset": name}}))
    spec = BackboneSpec(name)
    for part in ("video", "audio", "signal"):
        encoder = EncoderSpec(**found["model"]["encoders"][part])
        built = encoder_of(BackboneSpec(name, encoders={part: encoder}), part)
        assert built == replace(encoder_of(spec, part), stack=STACK if part == "video" else 1)
    assert found["model"]["width"] == PRESETS[name].width
    assert found["data"]["size"] == PRESETS[name].pixels


def test_nested_and_described():
    choices = choose("pretrain", index(), {})
    content = nested(choices)
    assert content["data"]["segments"] == 3
    assert content["model"]["encoders"]["video"]["stack"] == STACK
    lines = describe(choices)
    assert len(lines) == len(choices)
    assert all(choice.key in line for choice, line in zip(choices, lines, strict=True))
