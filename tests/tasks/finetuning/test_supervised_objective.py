"""Losses of supervised training against their formulas."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import AugmentConfig, Preparation
from modalgate.tasks.finetuning.balance.aids import AidsConfig
from modalgate.tasks.finetuning.balance.pareto_gradients import pareto_factors
from modalgate.tasks.finetuning.supervised_objective import (
    StoredBatch,
    SupervisedObjective,
    balanced_weights,
    guess,
    positive_weights,
)
from torch import Tensor

CLASSES = ("calm", "fight", "run")
Make, MakeBatch = Callable[..., SupervisedObjective], Callable[..., Batch]


@pytest.fixture
def make(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec) -> Make:
    """An objective over rgb and audio, three classes, no augmentation."""

    def build(unimodal: bool = False, **arguments: Any) -> SupervisedObjective:
        classifier = Classifier(tiny_backbone(), CLASSES, unimodal=unimodal)
        return SupervisedObjective(classifier, tiny_clip, **({"augment": None} | arguments))

    return build


def naive_cross_entropy(logits: list[Tensor], labels: list[int], weights: tuple[float, ...] = (1, 1, 1)) -> Tensor:
    total = torch.zeros(())
    for row, label in zip(logits, labels, strict=True):
        total = total - weights[label] * (row[label] - row.exp().sum().log())
    return total / sum(weights[label] for label in labels)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0)])
def test_every_segment_has_the_label_of_its_clip(
    weights: tuple[float, ...] | None, make: Make, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    objective = make(class_weights=weights)
    labels = [0, 2, 1, 1]
    batch = tiny_batch(label=labels, absent={("audio", 1)})
    outputs = objective(batch)
    scored = objective.classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    rows = [scored.logits[clip, segment] for clip in range(4) for segment in range(2)]
    repeated = [label for label in labels for _ in range(2)]
    torch.testing.assert_close(outputs["label/loss"], naive_cross_entropy(rows, repeated, weights or (1, 1, 1)))
    hits = [int(row.argmax()) == label for row, label in zip(rows, repeated, strict=True)]
    assert float(outputs["label/accuracy"]) == pytest.approx(sum(hits) / 8)
    assert {name for name in outputs if name.endswith("/loss")} == {"label/loss", "gate/loss"}


def test_unimodal_heads_use_only_clips_with_their_modality(
    make: Make, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    objective = make(unimodal=True, unimodal_weight=0.3)
    labels = [0, 2, 1, 1]
    batch = tiny_batch(label=labels, absent={("audio", 1), ("audio", 3), ("rgb", 0)})
    outputs = objective(batch)
    scored = objective.classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    losses = []
    for name, clips in (("rgb", [1, 2, 3]), ("audio", [0, 2])):
        rows = [scored.unimodal[name][clip, segment] for clip in clips for segment in range(2)]
        losses.append(naive_cross_entropy(rows, [labels[clip] for clip in clips for _ in range(2)]))
    torch.testing.assert_close(outputs["unimodal/loss"], torch.stack(losses).mean())
    assert objective.weights == {"label/loss": 1.0, "unimodal/loss": 0.3}


def test_blended_heads_have_separate_weights(make: Make, tiny_batch: MakeBatch, tiny_clip: ClipSpec) -> None:
    shares = {"rgb": 0.2, "audio": 0.3, "joint": 0.5}
    objective = make(unimodal=True, head_weights=shares)
    batch = tiny_batch(label=[0, 2, 1, 1])
    outputs = objective(batch)
    scored = objective.classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    repeated = [label for label in [0, 2, 1, 1] for _ in range(2)]
    expected = sum(
        shares[name] * naive_cross_entropy(list(scored.unimodal[name].flatten(0, 1)), repeated)
        for name in ("rgb", "audio")
    )
    torch.testing.assert_close(outputs["unimodal/loss"] * objective.weights["unimodal/loss"], expected)
    assert objective.weights["label/loss"] == 0.5


def test_a_batch_without_audio_reaches_every_parameter(make: Make, tiny_batch: MakeBatch) -> None:
    objective = make(unimodal=True, augment=AugmentConfig()).train()
    batch = tiny_batch(label=[0, 1, 2, 0], absent={("audio", clip) for clip in range(4)})
    outputs = objective(batch)
    sum(value for name, value in outputs.items() if name.endswith("/loss")).backward()  # pyright: ignore
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    own = objective.classifier.unimodal["audio"]
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in own.parameters())
    assert "gate/audio" not in outputs


def test_augmentation_is_for_training_only(
    planted_classifier: Callable[..., Classifier], tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    augment = AugmentConfig(brightness=3.0)
    objective = SupervisedObjective(planted_classifier(), tiny_clip, augment)
    batch = tiny_batch(label=[0, 1, 1, 0])
    sign = torch.tensor([-1.0, 1.0, 1.0, -1.0])[:, None]

    @torch.no_grad()
    def losses(given: AugmentConfig | None) -> tuple[list[Tensor], list[Tensor]]:
        found, expected = [], []
        for batch.seed in (1, 2, 1):
            found.append(objective(batch)["label/loss"])
            means = [stream.flatten(2).mean(dim=2) for stream in Preparation(tiny_clip)(batch, given).values()]
            expected.append(-F.logsigmoid(sign * sum(means) / 2).mean())
        return found, expected

    objective.train()
    found, expected = losses(augment)
    torch.testing.assert_close(found, expected)
    assert torch.equal(found[0], found[2])
    objective.eval()
    found, plain = losses(None)
    torch.testing.assert_close(found, plain)
    # Brightness moves by up to three deviations: each draw has a loss far from the others.
    first, second, third = sorted(float(loss) for loss in (*expected[:2], plain[0]))
    assert min(second - first, third - second) > 0.01


def test_a_batch_without_labels_raises(make: Make, tiny_batch: MakeBatch) -> None:
    with pytest.raises(AssertionError, match="labels"):
        make()(tiny_batch())


def test_class_weights_are_not_saved(make: Make) -> None:
    assert make(class_weights=(0.5, 2.0, 1.0)).state_dict().keys() == make().state_dict().keys()


def test_balanced_weights() -> None:
    labels = [0] * 6 + [1] * 2 + [2]
    weights = balanced_weights(labels, 3)
    assert weights == pytest.approx([0.5, 1.5, 3.0])
    assert sum(weights[label] for label in labels) / len(labels) == pytest.approx(1)
    missing = balanced_weights([0, 0, 0, 2], 3)
    assert sum(missing[label] for label in [0, 0, 0, 2]) / 4 == pytest.approx(1), "also where a class has no clip"
    assert missing[2] == pytest.approx(3 * missing[0])


def test_the_gate_is_fixed_during_warmup_and_then_trains(make: Make, tiny_batch: MakeBatch) -> None:
    objective = make(aids=AidsConfig(gate_warmup=0.5), batches=4).train()
    gate = objective.classifier.backbone.fusion.gate_parameters()
    moved = []
    for seed in range(4):
        objective.zero_grad()
        outputs = objective(tiny_batch(label=[0, 2, 1, 1], seed=seed))
        outputs["label/loss"].backward()
        moved.append(any(bool((p.grad != 0).any()) for p in gate if p.grad is not None))
    assert moved == [False, False, True, True]


def test_modulation_acts_on_encoders_in_the_first_half(
    planted_classifier: Callable[..., Classifier], tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    batch = tiny_batch(label=[1, 1, 1, 1])
    found = []
    for alpha in (0.0, 0.5):
        classifier = planted_classifier(unimodal=True)
        # Heads per modality give the true class with probability 0.8 and 0.4.
        with torch.no_grad():
            for name, right in (("rgb", 0.8), ("audio", 0.4)):
                classifier.unimodal[name].weight.zero_()  # pyright: ignore
                classifier.unimodal[name].bias.copy_(torch.tensor([1 - right, right]).log())  # pyright: ignore
        aids = AidsConfig(modulation=alpha)
        objective = SupervisedObjective(classifier, tiny_clip, None, 1.0, aids=aids, batches=2).train()
        for _ in range(2):
            objective.zero_grad()
            outputs = objective(batch)
            (outputs["label/loss"] + outputs["unimodal/loss"]).backward()
            gains = torch.stack([encoder.gain.grad for encoder in classifier.backbone.encoders.values()])  # pyright: ignore
            head = torch.cat([p.grad.flatten() for p in classifier.head.parameters() if p.grad is not None])
            found.append((gains, head))
    plain, _, held, released = found
    assert plain[0].abs().min() > 1e-3
    # The gain is a scalar: its gradient has no deviation, so modulation adds no noise.
    torch.testing.assert_close(held[0], plain[0] * torch.tensor([1 - np.tanh(0.5 * 0.8 / 0.4), 1.0]).float())
    torch.testing.assert_close(plain[1], held[1])
    torch.testing.assert_close(plain[0], released[0])


def test_the_rank_loss_trains_the_energy_decision(
    tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tiny_batch: MakeBatch
) -> None:
    batch = tiny_batch(label=[0, 2, 1, 1], absent={("audio", 1)})
    classifier = Classifier(tiny_backbone(), CLASSES, decision="energy")
    objective = SupervisedObjective(classifier, tiny_clip, None, aids=AidsConfig(rank=0.1), keys=batch.key)
    outputs = objective(batch)
    outputs["rank/loss"].backward()
    assert objective.weights["rank/loss"] == 0.1
    assert objective.history is not None
    assert objective.history.count.tolist() == [[1, 1], [1, 0], [1, 1], [1, 1]]
    assert classifier.unimodal["audio"].weight.grad is not None


@pytest.mark.parametrize(
    ("aids", "message"),
    [
        (AidsConfig(modulation=0.5), "unimodal_weight above 0"),
        (AidsConfig(rank=0.1), "decision 'energy'"),
        (AidsConfig(gate_warmup=0.1), "fusion 'concat' has none"),
    ],
)
def test_an_aid_that_does_not_suit_the_classifier_raises(
    aids: AidsConfig, message: str, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    classifier = Classifier(tiny_backbone(fusion="concat"), CLASSES)
    with pytest.raises(RequestError, match=message):
        SupervisedObjective(classifier, tiny_clip, None, aids=aids)


def test_guessing_is_the_lowest_loss_of_a_constant_prediction() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])

    def least(loss: Callable[[Tensor], Tensor]) -> float:
        logits = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(logits)
            value.backward()
            return value

        optimizer.step(closure)  # pyright: ignore[reportArgumentType]
        return float(loss(logits).detach())

    target = torch.tensor(labels)
    for weights in (None, balanced_weights(labels.tolist(), 3)):
        given = None if weights is None else torch.tensor(weights)
        found = guess(labels, 3, weights)
        assert found.loss == pytest.approx(
            least(lambda logits, w=given: F.cross_entropy(logits.expand(10, 3), target, weight=w)), abs=1e-4
        )
        assert found.accuracy == 0.6
    assert guess(labels, 3, balanced_weights(labels.tolist(), 3)).loss == pytest.approx(np.log(3))
    truth = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 1], [1, 0, 0]])
    several = torch.tensor(truth).float()
    for weights in (None, positive_weights(truth)):
        given = None if weights is None else torch.tensor(weights)
        expected = least(
            lambda logits, w=given: F.binary_cross_entropy_with_logits(logits.expand(5, 3), several, pos_weight=w)
        )
        assert guess(truth, 3, weights).loss == pytest.approx(expected, abs=1e-4)


def test_distillation_is_the_distance_to_the_features_of_each_expert(
    make: Make, tiny_batch: MakeBatch, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    teachers = {name: Classifier(tiny_backbone((name,)), CLASSES) for name in ("rgb", "audio")}
    objective = make(aids=AidsConfig(distillation=0.5), teachers=teachers)
    batch = tiny_batch(label=[0, 2, 1, 1], absent={("audio", 1), ("audio", 3)})
    outputs = objective(batch)
    streams = Preparation(tiny_clip)(batch)
    total = torch.zeros(())
    for name, teacher in teachers.items():
        distances = []
        for clip in range(4):
            for segment in range(2):
                if batch.present[name][clip, segment]:
                    row = streams[name][clip : clip + 1, segment]
                    mine = objective.classifier.backbone
                    ours, theirs = (
                        model.projections[name](model.encoders[name](row))[0] for model in (mine, teacher.backbone)
                    )
                    distances.append(((ours - theirs) ** 2).sum())
        total = total + torch.stack(distances).mean()
    torch.testing.assert_close(outputs["distillation/loss"], total, rtol=1e-4, atol=1e-5)
    assert objective.weights["distillation/loss"] == 0.5
    # Teachers are neither trained nor saved.
    assert not any("teacher" in name for name in objective.state_dict())
    outputs["distillation/loss"].backward()
    assert all(p.grad is None for teacher in teachers.values() for p in teacher.parameters())


def test_pareto_changes_only_the_gradients_of_encoders(make: Make, tiny_batch: MakeBatch) -> None:
    """Its control is the plain sum: the same losses, and the same gradients of heads and fusion."""
    gradients, single = {}, {}
    for pareto in (0.0, 1.5):
        objective = make(unimodal=True, unimodal_weight=1.0, aids=AidsConfig(pareto=pareto))
        generator = torch.Generator().manual_seed(1)
        for parameter in objective.parameters():
            torch.nn.init.normal_(parameter, std=0.1, generator=generator)
        outputs = objective(tiny_batch(label=[0, 2, 1, 1]))
        named = dict(objective.named_parameters())
        if not pareto:
            for name in ("label/loss", "unimodal/loss"):
                found = torch.autograd.grad(outputs[name], list(named.values()), retain_graph=True, allow_unused=True)
                single[name] = dict(zip(named, found, strict=True))
        losses = [objective.weights.get(k, 1.0) * v for k, v in outputs.items() if k.endswith("/loss")]
        torch.stack(losses).sum().backward()
        gradients[pareto] = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    for modality in ("rgb", "audio"):
        names = [
            name for name in gradients[0.0] if f".encoders.{modality}." in name or f"projections.{modality}" in name
        ]

        def flat(grads: dict[str, Tensor], names: list[str] = names) -> Tensor:
            return torch.cat([grads[name].flatten() for name in names])

        fused, own = flat(single["label/loss"]), flat(single["unimodal/loss"])
        one, two = pareto_factors(fused, own)
        # Gradients of opposite sign cancel, so rounding is relative to the larger ones.
        torch.testing.assert_close(flat(gradients[1.5]), one * fused + two * own, rtol=1e-3, atol=3e-5)
    for name, plain in gradients[0.0].items():
        if "encoders" not in name and "projections" not in name:
            torch.testing.assert_close(gradients[1.5][name], plain, rtol=1e-4, atol=1e-6)


def test_a_gate_that_is_fitted_after_the_training_gets_no_warning(
    tiny_batch: MakeBatch, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    batch, found = tiny_batch(label=[0, 2, 1, 1]), {}
    for joint in (0.0, 1.0):
        classifier = Classifier(tiny_backbone(), CLASSES, decision="reliability")
        objective = SupervisedObjective(
            classifier, tiny_clip, None, head_weights={"joint": joint, "rgb": 0.5, "audio": 0.5}
        )
        found[joint] = {name: float(value.detach()) for name, value in objective(batch).items()}
        if not joint:
            assert not objective.verdict([found[joint]] * 10)
    assert "fusion/gradient" not in found[0.0]
    assert found[1.0]["fusion/gradient"] > 0


@pytest.mark.parametrize("aids", [AidsConfig(pareto=1.5), AidsConfig(distillation=1.0)])
def test_an_aid_without_what_it_needs_is_refused(make: Make, aids: AidsConfig) -> None:
    with pytest.raises(RequestError, match=r"unimodal_weight above 0|expert of each modality"):
        make(aids=aids)


def test_a_batch_of_features_moves_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)
    start, valid = torch.zeros(2, 1), torch.ones(2, dtype=torch.bool)
    batch = StoredBatch({"rgb": torch.ones(2, 1, 4)}, {}, ["a", "b"], start, None, valid, 3, torch.ones(2, 1, 1, 1))
    for moved in (batch.to("cpu"), batch.pin_memory()):
        assert isinstance(moved, StoredBatch)
        assert moved.quality is not None
        assert torch.equal(moved.quality, torch.ones(2, 1, 1, 1))
        assert (moved.key, moved.seed) == (["a", "b"], 3)
