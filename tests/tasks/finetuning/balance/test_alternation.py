"""MLA against a naive loop over steps, and its projection against the inverse that it equals."""

import copy
from collections.abc import Callable, Sequence

import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.decision import EntropyDecision
from modalgate.fusion.mechanisms.opinion import OpinionPool
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.errors import RequestError
from modalgate.shards.transforms import Preparation
from modalgate.tasks.finetuning.balance.aids import AidsConfig
from modalgate.tasks.finetuning.balance.alternation import Alternation, check_alternation
from modalgate.tasks.finetuning.supervised_objective import SupervisedObjective
from torch import Tensor, nn

CLASSES, RATE, DAMPING = ("calm", "fight", "run"), 0.05, 0.5
MakeBackbone, MakeBatch = Callable[..., Backbone], Callable[..., Batch]


def classifier_of(tiny_backbone: MakeBackbone, seed: int = 1) -> Classifier:
    classifier = Classifier(tiny_backbone(), CLASSES, decision="entropy")
    generator = torch.Generator().manual_seed(seed)
    for parameter in classifier.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return classifier


def objective_of(classifier: Classifier, tiny_clip: ClipSpec, accumulate: int = 1) -> SupervisedObjective:
    aids = AidsConfig(alternation=DAMPING)
    return SupervisedObjective(classifier, tiny_clip, None, aids=aids, accumulate=accumulate).train()


def batches_of(tiny_batch: MakeBatch) -> list[Batch]:
    """Five batches: one clip of the second lacks sound, and all clips of the fourth do."""
    missing: list[set[tuple[str, int]]] = [set(), {("audio", 1)}, set(), {("audio", n) for n in range(4)}, set()]
    labels = [[0, 2, 1, 1], [1, 0, 2, 0], [2, 2, 0, 1], [0, 1, 2, 1], [1, 1, 0, 2]]
    return [
        tiny_batch(label=label, absent=absent, seed=seed)
        for seed, (label, absent) in enumerate(zip(labels, missing, strict=True))
    ]


# Of the batches above: sound misses its turn in the fourth.
TURNS = ("rgb", "audio", "rgb", "rgb", "audio")


def trained(objective: SupervisedObjective, batches: Sequence[Batch]) -> None:
    optimizer = torch.optim.SGD(objective.parameters(), RATE)
    for batch in batches:
        optimizer.zero_grad()
        objective(batch)["label/loss"].backward()
        optimizer.step()


def naive(classifier: Classifier, tiny_clip: ClipSpec, batches: Sequence[Batch]) -> tuple[Classifier, list[float]]:
    """The same training, clip by clip, with the projection as an inverse, and its losses."""
    head = classifier.unimodal["rgb"]
    assert isinstance(head, nn.Linear)
    means: list[tuple[str, Tensor]] = []
    projected: list[Tensor] = []
    losses = []
    for name, batch in zip(TURNS, batches, strict=True):
        streams = Preparation(tiny_clip)(batch)
        assert batch.label is not None
        rows, terms = [], []
        for clip in range(4):
            for segment in range(2):
                if not batch.present[name][clip, segment]:
                    continue
                media = streams[name][clip : clip + 1, segment]
                feature = classifier.backbone.projections[name](classifier.backbone.encoders[name](media))[0]
                scores = head.weight @ feature + head.bias
                terms.append(scores.exp().sum().log() - scores[batch.label[clip]])
                rows.append(feature.detach())
        loss = torch.stack(terms).mean()
        losses.append(float(loss.detach()))
        if means and means[-1][0] != name:
            projected.append(means[-1][1])
        inverse = torch.eye(8).double() + sum((h.outer(h) / DAMPING for h in projected), torch.zeros(8, 8).double())
        weights = [
            *classifier.backbone.encoders[name].parameters(),
            *classifier.backbone.projections[name].parameters(),
        ]
        gradients = torch.autograd.grad(loss, [*weights, head.weight, head.bias])
        with torch.no_grad():
            for weight, gradient in zip([*weights, head.bias], [*gradients[:-2], gradients[-1]], strict=True):
                weight -= RATE * gradient
            head.weight -= RATE * (gradients[-2].double() @ torch.linalg.inv(inverse)).float()
        means.append((name, torch.stack(rows).mean(dim=0).double()))
    return classifier, losses


def test_training_equals_a_naive_loop_with_absent_modalities(
    tiny_backbone: MakeBackbone, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    start = classifier_of(tiny_backbone)
    objective = objective_of(copy.deepcopy(start), tiny_clip)
    batches = batches_of(tiny_batch)
    expected, losses = naive(start, tiny_clip, batches)
    optimizer = torch.optim.SGD(objective.parameters(), RATE)
    for name, loss, batch in zip(TURNS, losses, batches, strict=True):
        optimizer.zero_grad()
        outputs = objective(batch)
        assert float(outputs["label/loss"].detach()) == pytest.approx(loss, rel=1e-4)
        assert float(outputs[f"alternation/{name}"]) == float(outputs["label/loss"].detach())
        outputs["label/loss"].backward()
        moving = {
            key.split(".")[3] for key, p in objective.named_parameters() if ".encoders." in key and p.grad is not None
        }
        assert moving == {name}
        optimizer.step()
    found, wanted = objective.classifier.state_dict(), expected.state_dict()
    for key, value in wanted.items():
        if not key.startswith("unimodal"):
            torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-5)
    for name in ("rgb", "audio"):
        for part in ("weight", "bias"):
            shared = wanted[f"unimodal.rgb.{part}"]
            torch.testing.assert_close(found[f"unimodal.{name}.{part}"], shared, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("done", [1, 3])
def test_a_training_resumes_to_the_same_weights(
    tiny_backbone: MakeBackbone, tiny_batch: MakeBatch, tiny_clip: ClipSpec, done: int
) -> None:
    batches = batches_of(tiny_batch)
    whole = objective_of(classifier_of(tiny_backbone), tiny_clip)
    trained(whole, batches)
    cut = objective_of(classifier_of(tiny_backbone), tiny_clip)
    trained(cut, batches[:done])
    resumed = objective_of(classifier_of(tiny_backbone, seed=2), tiny_clip)
    resumed.load_state_dict(copy.deepcopy(cut.state_dict()))
    trained(resumed, batches[done:])
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_all_batches_of_a_step_train_one_modality(
    tiny_backbone: MakeBackbone, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    objective = objective_of(classifier_of(tiny_backbone), tiny_clip, accumulate=2)
    turns = []
    for batch in batches_of(tiny_batch)[:4]:
        (turn,) = (key for key in objective(batch) if key.startswith("alternation/"))
        turns.append(turn)
    # No clip of the fourth batch has sound: it adds nothing to a step on sound.
    assert turns == ["alternation/rgb"] * 2 + ["alternation/audio"] * 2
    assert objective.alternation is not None
    assert int(objective.alternation.count) == 8


def test_the_projection_protects_what_the_head_gives_the_last_modality() -> None:
    head = nn.Linear(3, 2)
    nn.init.zeros_(head.weight)
    alternation = Alternation(head, ("rgb", "audio"), 1e-9)
    here = {name: torch.ones(1, 1, dtype=torch.bool) for name in ("rgb", "audio")}
    first, second = torch.tensor([[3.0, 0.0, 4.0]]), torch.tensor([[1.0, 1.0, 1.0]])
    alternation.begin(here)
    alternation.see(first)
    alternation.begin(here)
    (head(second)[0, 0]).backward()
    assert head.weight.grad is not None
    # Without projection the gradient of the first score is the feature itself.
    expected = second[0] - first[0] * (second[0] @ first[0]) / (first[0] @ first[0])
    torch.testing.assert_close(head.weight.grad[0], expected, rtol=1e-5, atol=1e-6)
    assert float((head.weight.grad @ first[0]).abs().max()) < 1e-5


def test_at_test_time_the_heads_are_joined_by_the_decision(
    tiny_backbone: MakeBackbone, tiny_batch: MakeBatch, tiny_clip: ClipSpec
) -> None:
    objective = objective_of(classifier_of(tiny_backbone), tiny_clip).eval()
    batch = batches_of(tiny_batch)[1]
    scored = objective.classifier(Preparation(tiny_clip)(batch), batch.present, batch.start)
    assert batch.label is not None
    expected = nn.functional.cross_entropy(scored.logits.flatten(0, 1), batch.label.repeat_interleave(2))
    torch.testing.assert_close(objective(batch)["label/loss"], expected)
    # A clip without sound is scored by its pictures.
    torch.testing.assert_close(scored.logits[1], scored.unimodal["rgb"][1].log_softmax(dim=-1))


@pytest.mark.parametrize(
    ("aids", "decision", "message"),
    [
        (AidsConfig(alternation=0.1, pareto=1.5), EntropyDecision(("rgb", "audio"), 3), "set aids.pareto to 0"),
        (AidsConfig(alternation=0.1, rank=0.1), EntropyDecision(("rgb", "audio"), 3), "set aids.rank to 0"),
        (AidsConfig(alternation=0.1), None, "set decision=entropy"),
        (AidsConfig(alternation=0.1), OpinionPool(("rgb", "audio"), 3), "without trained weights"),
    ],
)
def test_what_alternation_does_not_train_is_refused(
    aids: AidsConfig, decision: nn.Module | None, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        check_alternation(aids, decision)
