"""The mixture of pretext tasks over one backbone."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from modalgate.fusion.backbone import Backbone, Encoded
from modalgate.fusion.mechanisms.gates import mean_gate_divergence
from modalgate.fusion.spec import EncoderSpec
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import AugmentConfig, Preparation
from modalgate.ssl.monitors import monitors
from modalgate.ssl.objective import PretextObjective
from modalgate.ssl.pretext.direction import ArrowOfTime
from modalgate.ssl.tasks_by_name import PRETEXT_TASKS, build_pretext_task
from modalgate.ssl.views.views import ViewFunction, pace, reverse
from torch import Tensor

TASKS: dict[str, tuple[float, dict[str, Any]]] = {
    "clip_order": (0.5, {"dropout": 0.0}),
    "correspondence": (2.0, {}),
    "cross_modal": (1.0, {"temperature": 0.2}),
}
MakeObjective, MakeBatch = Callable[..., PretextObjective], Callable[..., Batch]


@pytest.fixture
def make(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> MakeObjective:
    """An objective over rgb and audio; always the same random weights."""

    def build(*names: str, **changes: Any) -> PretextObjective:
        backbone = tiny_backbone(**changes)
        tasks = {name: TASKS[name] for name in names or TASKS}
        return PretextObjective(backbone, tiny_clip, 2, tasks, AugmentConfig()).train()

    return build


@pytest.mark.parametrize("names", [("cross_modal",), tuple(TASKS)])
def test_segments_are_encoded_once_for_all_tasks(
    names: tuple[str, ...], make: MakeObjective, tiny_batch: MakeBatch
) -> None:
    objective = make(*names)
    rows: dict[str, list[int]] = {"rgb": [], "audio": []}
    for name, encoder in objective.backbone.encoders.items():
        encoder.register_forward_pre_hook(lambda _, inputs, name=name: rows[name].append(len(inputs[0])))
    objective(tiny_batch(absent={("audio", 0)}))
    assert rows == {"rgb": [8], "audio": [6]}


def test_losses_carry_their_names_and_weights(make: MakeObjective, tiny_batch: MakeBatch) -> None:
    objective = make()
    outputs = objective(tiny_batch())
    losses = {name for name in outputs if name.endswith("/loss")}
    assert losses == {"clip_order/loss", "correspondence/loss", "cross_modal/loss", "gate/loss"}
    assert {name for name in outputs if name.endswith("/accuracy")} == {f"{name}/accuracy" for name in TASKS}
    assert objective.weights == {"clip_order/loss": 0.5, "correspondence/loss": 2.0, "cross_modal/loss": 1.0}
    assert {"gate/rgb", "gate/audio", "embedding/std"} <= outputs.keys()
    assert all(value.shape == () for value in outputs.values())


@pytest.mark.parametrize("name", ["leave_one_out", "byol", "gate_denoising"])
def test_views_without_a_gate_loss_and_the_teacher_do_not_dilute_it(
    name: str, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    backbone = tiny_backbone(("rgb", "depth", "audio"), fusion_arguments={"balance": 1.0})
    objective = PretextObjective(backbone, tiny_clip, 2, {name: (1.0, {})}, None).train()
    for parameter in backbone.fusion.gate_parameters():
        torch.nn.init.normal_(parameter)
    batch = tiny_batch(modalities=("rgb", "depth", "audio"))
    views = {view: encoded for view, encoded in objective._encode(batch).items() if view != "teacher"}
    assert len(objective._encode(batch)) > 1
    losses = [float(mean_gate_divergence(view.weights, presence(view))) for view in views.values()]
    counted = [loss for view, loss in zip(views, losses, strict=True) if not view.startswith("without_")]
    assert losses[0] > 0.01
    expected = sum(counted) / len([loss for loss in counted if loss])
    assert float(objective(batch)["gate/loss"]) == pytest.approx(expected, rel=1e-4)


def presence(view: Encoded) -> Tensor:
    return torch.stack([view.present[name] for name in view.modalities], dim=-1)


def test_every_accuracy_states_its_chance(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    tasks: dict[str, tuple[float, dict[str, Any]]] = {name: (1.0, {}) for name in PRETEXT_TASKS}
    objective = PretextObjective(tiny_backbone(), tiny_clip, 4, tasks, None).train()
    for seed in range(2):  # queues are empty in the first batch
        outputs = objective(tiny_batch(clips=12, segments=4, absent={("audio", 1)}, seed=seed))
    accuracies = {name.removesuffix("/accuracy") for name in outputs if name.endswith("/accuracy")}
    assert accuracies == set(PRETEXT_TASKS)
    assert {name.removesuffix("/chance") for name in outputs if name.endswith("/chance")} == accuracies
    assert all(0 < float(outputs[f"{name}/chance"]) < 0.9 for name in accuracies)
    # A row of 11 clips with sound has 4 segments of each of the others as negatives.
    assert float(outputs["cross_modal/chance"]) == pytest.approx(1 / 41)
    # In the queue wait the rows of the first batch as well: of 11 clips for sound, of 12 for the picture.
    assert float(outputs["momentum_queue/chance"]) == pytest.approx((1 / (41 + 44) + 1 / (45 + 48)) / 2)


def test_task_loss_does_not_depend_on_other_tasks(make: MakeObjective, tiny_batch: MakeBatch) -> None:
    company = make()
    alone = make("clip_order")  # the first to draw from the batch's generator in both
    alone.load_state_dict({k: v for k, v in company.state_dict().items() if k in alone.state_dict()})
    torch.testing.assert_close(alone(tiny_batch())["clip_order/loss"], company(tiny_batch())["clip_order/loss"])


def test_a_batch_without_audio_trains_and_leaves_no_nan(make: MakeObjective, tiny_batch: MakeBatch) -> None:
    objective = make(modality_dropout=0.5)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in objective.named_parameters()}
    torch.manual_seed(0)
    for step, silent in enumerate(([0, 1, 2, 3], [1, 2], [])):
        optimizer.zero_grad()
        outputs = objective(tiny_batch(absent={("audio", clip) for clip in silent}, seed=step))
        sum(value for name, value in outputs.items() if name.endswith("/loss")).backward()  # pyright: ignore
        for name, parameter in objective.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
        assert all(bool(torch.isfinite(value)) for value in outputs.values())
        assert ("gate/audio" in outputs) == (len(silent) < 4)
        assert ("cross_modal/accuracy" in outputs) == (len(silent) < 4)
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in objective.parameters())
    moved = [name for name, p in objective.named_parameters() if not torch.equal(p.detach(), before[name])]
    assert any("encoders.audio" in name for name in moved)
    assert any("encoders.rgb" in name for name in moved)


def test_every_draw_uses_the_batch_seed(make: MakeObjective, tiny_batch: MakeBatch, tiny_clip: ClipSpec) -> None:
    objective = make()
    batch = tiny_batch()

    seen: list[torch.Tensor] = []
    objective.backbone.encoders["rgb"].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def outputs(seed: int, state: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(state)
        batch.seed = seed
        return objective(batch)

    first, again, _ = outputs(5, 0), outputs(5, 1), outputs(6, 0)
    # Gradients are measured in some batches only.
    both = first.keys() & again.keys()
    assert {name for name in first.keys() ^ again.keys() if not name.endswith("/gradient")} == set()
    assert all(torch.equal(first[name], again[name]) for name in both)
    for seed, found in zip((5, 5, 6), seen, strict=True):
        augmented = Preparation(tiny_clip)(replace(batch, seed=seed), AugmentConfig())["rgb"]
        torch.testing.assert_close(found, augmented.flatten(0, 1))


def test_evaluation_does_not_augment(make: MakeObjective, tiny_batch: MakeBatch) -> None:
    objective = make("cross_modal").eval()
    batch = tiny_batch()
    losses = []
    for batch.seed in (1, 2):
        with torch.no_grad():
            losses.append(objective(batch)["cross_modal/loss"])
    assert torch.equal(*losses)


def test_monitors_distinguish_collapse_from_spread(
    tiny_backbone: Callable[..., Backbone], tiny_batch: MakeBatch
) -> None:
    backbone = tiny_backbone()
    batch = tiny_batch(clips=64, segments=1, absent={("audio", clip) for clip in range(32)})
    with torch.no_grad():
        features = {name: torch.randn(64, 1, 8) for name in backbone.modalities}
        encoded = backbone({}, {name: torch.zeros(64, 1, dtype=torch.bool) for name in features}, batch.start)
    encoded.present = batch.present
    encoded.weights = torch.tensor([0.75, 0.25]).expand(64, 1, 2).clone()
    encoded.weights[:32] = torch.tensor([1.0, 0.0])
    assert float(monitors(encoded)["embedding/std"]) == pytest.approx(0, abs=1e-6)
    encoded.embedding = features["rgb"]
    values = monitors(encoded)
    assert float(values["embedding/std"]) == pytest.approx(8**-0.5, rel=0.1)
    assert float(values["gate/rgb"]) == pytest.approx(0.875)
    assert float(values["gate/audio"]) == pytest.approx(0.25), "only rows that have it count"


def test_one_row_has_no_spread_and_no_nan(make: MakeObjective, tiny_batch: MakeBatch) -> None:
    outputs = make("cross_modal")(tiny_batch(clips=1, segments=1))
    assert float(outputs["embedding/std"]) == 0
    assert all(bool(torch.isfinite(value)) for value in outputs.values())


@pytest.mark.parametrize(
    ("frames", "task", "message"),
    [
        (
            3,
            "clip_order",
            "data.frames of 3 gives 3 frames of rgb in the view 'plain'.* stacks of 2: .*multiple of 2",
        ),
        (2, "pace", "data.frames of 2 gives 1 frames of rgb in the view 'pace'.* stacks of 2: .*multiple of 4"),
    ],
)
def test_frames_not_divisible_into_stacks_are_rejected_early(
    frames: int,
    task: str,
    message: str,
    tiny_backbone: Callable[..., Backbone],
    tiny_encoder: Callable[..., EncoderSpec],
    tiny_clip: ClipSpec,
) -> None:
    backbone = tiny_backbone(("rgb",), encoders={"video": tiny_encoder(stack=2)})
    with pytest.raises(RequestError, match=message):
        PretextObjective(backbone, replace(tiny_clip, frames=frames), 3, {task: (1.0, {})}, None)
    PretextObjective(backbone, replace(tiny_clip, frames=4), 3, {task: (1.0, {})}, None)


def test_objective_without_tasks_is_rejected(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> None:
    with pytest.raises(RequestError, match="no pretext task"):
        PretextObjective(tiny_backbone(), tiny_clip, 2, {}, None)


def test_tasks_can_be_instances(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    torch.manual_seed(3)
    built = build_pretext_task("correspondence", ("rgb", "audio"), 8, 2, {})
    order = build_pretext_task("clip_order", ("rgb", "audio"), 8, 2, {"dropout": 0.0})
    objective = PretextObjective(tiny_backbone(), tiny_clip, 2, {"same": built, "order": (0.5, order)})
    assert objective.tasks["same"] is built
    assert objective.weights == {"same/loss": 1.0, "order/loss": 0.5}
    named = PretextObjective(
        tiny_backbone(), tiny_clip, 2, {"correspondence": (1.0, {}), "clip_order": (0.5, {"dropout": 0.0})}
    )
    state = objective.state_dict()
    names = {"same": "correspondence", "order": "clip_order"}
    for mine, other in names.items():
        state = {key.replace(f"tasks.{mine}.", f"tasks.{other}."): value for key, value in state.items()}
    named.load_state_dict(state)
    first, second = objective(tiny_batch()), named(tiny_batch())
    for mine, other in names.items():
        assert torch.equal(first[f"{mine}/loss"], second[f"{other}/loss"])


class Mirrored(ArrowOfTime):
    """A different view under an existing name."""

    views: Mapping[str, ViewFunction] = {"reverse": pace}


class Plain(ArrowOfTime):
    """A view under a reserved name."""

    views: Mapping[str, ViewFunction] = {"plain": reverse}


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"first": ArrowOfTime(("rgb",), 8), "second": Mirrored(("rgb",), 8)}, "different views named 'reverse'"),
        ({"first": Plain(("rgb",), 8)}, "task 'first' has a view with the reserved name 'plain'"),
        (
            {"a:Arrow": ArrowOfTime(("rgb",), 8), "b:Arrow": ArrowOfTime(("rgb",), 8)},
            "two pretext tasks have the name",
        ),
    ],
)
def test_duplicate_names_are_rejected(
    tasks: dict[str, Any], message: str, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    with pytest.raises(RequestError, match=message):
        PretextObjective(tiny_backbone(("rgb",)), tiny_clip, 2, tasks)


def test_task_accepts_the_output_of_a_backbone(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    backbone = tiny_backbone()
    backbone.prepare_as(tiny_clip)
    encoded = backbone(tiny_batch())
    task = build_pretext_task("clip_order", backbone.modalities, 8, 2, {"dropout": 0.0})
    torch.manual_seed(4)
    found = task(encoded)
    torch.manual_seed(4)
    assert torch.equal(found["loss"], task({"plain": encoded}, torch.default_generator)["loss"])
    with pytest.raises(RequestError, match="task ArrowOfTime needs the view 'reverse', which is missing"):
        ArrowOfTime(("rgb",), 8)(encoded)
