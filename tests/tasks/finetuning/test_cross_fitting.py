"""Cross-fitting: folds by group, and experts that train as they would alone."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.tasks.finetuning.cross_fitting import CrossFitted, cross_fit_folds
from modalgate.tasks.finetuning.supervised_objective import SupervisedObjective, guess

MakeBatch = Callable[..., Batch]


def test_groups_stay_together_and_set_the_number_of_folds() -> None:
    keys = [str(number) for number in range(24)]
    labels, groups = ["a", "b"] * 12, [str(number // 6) for number in range(24)]
    folds = cross_fit_folds(keys, labels, groups, 5)
    assert list(folds) == keys
    # Four groups give four folds.
    assert sorted(set(folds.values())) == [0, 1, 2, 3]
    assert all(len({folds[key] for key in keys[start : start + 6]}) == 1 for start in range(0, 24, 6))
    assert len(set(cross_fit_folds(keys, labels, keys, 3).values())) == 3
    assert cross_fit_folds(keys, labels, ["one"] * 24, 5) == {}


def test_each_expert_trains_as_it_would_alone(
    tiny_batch: MakeBatch, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    batch = tiny_batch(label=[0, 1, 1, 0])
    batch.key[:] = ["w", "x", "y", "z"]
    experts = [Classifier(tiny_backbone(("rgb",)), ["a", "b"]) for _ in range(3)]
    alone = copy.deepcopy(experts)
    parts = [SupervisedObjective(expert, None, None) for expert in experts]
    objective = CrossFitted(parts[0], parts[1:], {"w": 0, "x": 1, "y": 0, "z": 1}, tiny_clip, None)
    outputs = objective(batch)
    losses = [objective.weights.get(k, 1.0) * v for k, v in outputs.items() if k.endswith("/loss")]
    torch.stack(losses).sum().backward()
    for expert, reference, rows in zip(experts, alone, ([0, 1, 2, 3], [1, 3], [0, 2]), strict=True):
        # Written out: the clips that the expert may see, as a batch of their own.
        few = tiny_batch(label=[0, 1, 1, 0])
        few.streams = {name: stream[rows] for name, stream in few.streams.items()}
        few.present = {name: mask[rows] for name, mask in few.present.items()}
        few.key, few.start = [batch.key[row] for row in rows], few.start[rows]
        assert few.label is not None
        few.label, few.valid = few.label[rows], few.valid[rows]
        found = SupervisedObjective(reference, tiny_clip, None)(few)
        torch.stack([value for name, value in found.items() if name.endswith("/loss")]).sum().backward()
        for mine, theirs in zip(expert.parameters(), reference.parameters(), strict=True):
            if theirs.grad is None:
                assert mine.grad is None or not mine.grad.any()
            else:
                torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6)


def test_a_batch_of_one_fold_gives_the_other_experts_no_gradient(
    tiny_batch: MakeBatch, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    batch = tiny_batch(label=[0, 1, 1, 0])
    experts = [Classifier(tiny_backbone(("rgb",)), ["a", "b"]) for _ in range(3)]
    whole, *parts = [SupervisedObjective(expert, None, None) for expert in experts]
    objective = CrossFitted(whole, parts, dict.fromkeys(batch.key, 0), tiny_clip, None)
    outputs = objective(batch)
    outputs["parts/loss"].backward()
    assert all(p.grad is None or not p.grad.any() for p in experts[1].parameters())
    assert any(p.grad is not None and bool(p.grad.any()) for p in experts[2].parameters())


def test_warnings_are_those_of_the_expert_that_is_used(
    tiny_batch: MakeBatch, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    """Also the verdict at the end: a loss that stays that of guessing."""
    experts = [Classifier(tiny_backbone(("rgb",)), ["a", "b"]) for _ in range(3)]
    guessing = guess(np.array([0, 1, 0, 1]), 2)
    whole, *parts = [SupervisedObjective(expert, None, None, guessing=guessing) for expert in experts]
    objective = CrossFitted(whole, parts, {}, tiny_clip, None)
    lines = [{"label/loss": guessing.loss, "label/guessing": guessing.loss, "label/accuracy": 0.5}] * 40
    lines = [line | {"label/chance": 0.5} for line in lines]
    assert whole.verdict(lines)
    assert objective.verdict(lines) == whole.verdict(lines)
