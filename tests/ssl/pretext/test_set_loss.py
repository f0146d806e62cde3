"""InfoNCE with sets of positives against a loop, and the joint form of two modalities."""

import pytest
import torch
from modalgate.ssl.pretext.base import unit
from modalgate.ssl.pretext.contrastive import cross_modal_loss, set_loss


def test_it_equals_the_loop_over_rows_and_positives() -> None:
    torch.manual_seed(0)
    similarities = torch.randn(6, 9, dtype=torch.float64, requires_grad=True)
    kind = torch.randint(3, (6, 9))
    kind[0] = 0
    kind[1] = 1
    positives, negatives = kind == 1, kind == 2
    valid = torch.tensor([True, True, True, False, True, True])
    loss, accuracy, chance = set_loss(similarities, positives, negatives, valid, 0.5)
    rows, hits, guesses = [], [], []
    for i in range(6):
        ones = [j for j in range(9) if positives[i, j]]
        others = [j for j in range(9) if negatives[i, j]]
        if not valid[i] or not ones or not others:
            continue
        bottom = sum((similarities[i, j] / 0.5).exp() for j in others)
        terms = [
            -((similarities[i, j] / 0.5).exp() / ((similarities[i, j] / 0.5).exp() + bottom)).log() for j in ones
        ]
        rows.append(torch.stack(terms).mean())
        best = max(ones + others, key=lambda j: float(similarities.detach()[i, j]))
        hits.append(best in ones)
        guesses.append(len(ones) / len(ones + others))
    expected = torch.stack(rows).mean()
    torch.testing.assert_close(loss, expected)
    assert float(accuracy) == pytest.approx(sum(hits) / len(hits))
    assert float(chance) == pytest.approx(sum(guesses) / len(guesses))
    mine, theirs = (torch.autograd.grad(value, similarities, retain_graph=True)[0] for value in (loss, expected))
    torch.testing.assert_close(mine, theirs)


def test_without_negatives_set_loss_is_zero_with_gradient() -> None:
    similarities = torch.randn(3, 3, requires_grad=True)
    nothing = torch.zeros(3, 3, dtype=torch.bool)
    loss, accuracy, chance = set_loss(similarities, torch.eye(3) > 0, nothing, torch.ones(3, dtype=torch.bool), 0.1)
    loss.backward()
    assert float(loss.detach()) == 0
    assert accuracy.isnan()
    assert chance.isnan()
    assert similarities.grad is not None
    assert (similarities.grad == 0).all()


def test_the_joint_form_adds_the_querys_own_modality() -> None:
    torch.manual_seed(0)
    first, second = unit(torch.randn(2, 6, 4, dtype=torch.float64)).unbind(0)
    clips, valid = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([True] * 5 + [False])
    loss, _, _ = cross_modal_loss(first, second, valid, clips, 0.2, joint=True)
    total = torch.zeros((), dtype=torch.float64)
    for query, bank in ((first, second), (second, first)):
        for i in range(5):
            others = [j for j in range(5) if clips[j] != clips[i]]
            positive = (query[i] @ bank[i] / 0.2).exp()
            bottom = positive + sum(
                (query[i] @ bank[j] / 0.2).exp() + (query[i] @ query[j] / 0.2).exp() for j in others
            )
            total = total - (positive / bottom).log() / 10
    torch.testing.assert_close(loss, total)
