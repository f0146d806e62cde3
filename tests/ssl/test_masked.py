"""Masked tasks against one transformer pass per clip over its present tokens alone."""

from collections.abc import Callable

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.ssl.masked import ContrastiveMasked, MaskedLatent, MaskedTask, hide
from modalgate.ssl.pretext import unit
from modalgate.ssl.summary import summary_size
from torch import Tensor

NAMES = ("rgb", "audio")
ABSENT = [[], [("audio", 1)], [("rgb", 0), ("audio", 3)]]


def predictions(task: MaskedTask, plain: Encoded, hidden: Tensor) -> dict[tuple[int, int, int], Tensor]:
    """What the transformer says of every hidden (clip, segment, modality): absent tokens are not even padded."""
    inner, found = task.predictor, {}
    for clip in range(len(hidden)):
        places = [(k, m) for k in range(3) for m in range(2) if plain.present[NAMES[m]][clip, k]]
        if not places:
            continue
        tokens = []
        for k, m in places:
            seen = inner.mask_token if hidden[clip, k, m] else plain.features[NAMES[m]][clip, k]
            tokens.append(seen + inner.modality[m] + inner.place[k, 0])
        answers = inner.layers(torch.stack(tokens)[None])[0]
        for place, answer in zip(places, answers, strict=True):
            if hidden[(clip, *place)]:
                found[(clip, *place)] = answer
    return found


def drawn(task: MaskedTask, plain: Encoded) -> Tensor:
    present = torch.stack([plain.present[name] for name in NAMES], dim=2)
    return hide(present, task.share, torch.Generator().manual_seed(5))


@pytest.mark.parametrize("absent", ABSENT)
def test_masked_latent_is_the_mean_distance_of_what_was_hidden(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = MaskedLatent(NAMES, 8, 3).double()
    plain, teacher = leaves(names=NAMES, absent=absent), leaves(names=NAMES, absent=absent, seed=1)
    outputs = task({"plain": plain, "teacher": teacher}, torch.Generator().manual_seed(5))
    guesses = {
        place: unit(task.out(answer)) for place, answer in predictions(task, plain, drawn(task, plain)).items()
    }
    targets = {(c, k, m): unit(teacher.features[NAMES[m]][c, k]).detach() for c, k, m in guesses}
    expected = torch.stack([2 - 2 * guesses[place] @ targets[place] for place in guesses]).mean()
    assert_equation(outputs["loss"], expected, task, {"plain": plain, "teacher": teacher})
    hits = [
        place
        == max(
            (other for other in targets if other[2] == place[2]),
            key=lambda o: float(guesses[place].detach() @ targets[o]),
        )
        for place in guesses
    ]
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))


@pytest.mark.parametrize("absent", ABSENT)
def test_contrastive_masked_rebuilds_summaries_and_tells_clips_apart(
    absent: list[tuple[str, int]], leaves: Callable[..., Encoded], assert_equation: Callable[..., None]
) -> None:
    torch.manual_seed(0)
    task = ContrastiveMasked(NAMES, 8, 3, contrast=0.5, hidden=6, dimension=5).double()
    plain = leaves(names=NAMES, absent=absent)
    for name in NAMES:
        plain.facts[f"summary/{name}"] = torch.randn(5, 3, summary_size(name), dtype=torch.float64)
    outputs = task({"plain": plain}, torch.Generator().manual_seed(5))
    answers = predictions(task, plain, drawn(task, plain))
    rebuilt = []
    for m, name in enumerate(NAMES):
        errors = [
            (task.decoders[name](answer) - plain.facts[f"summary/{name}"][place[0], place[1]]).square().mean()
            for place, answer in answers.items()
            if place[2] == m
        ]
        if errors:
            rebuilt.append(torch.stack(errors).mean())
    rows = {name: unit(task.heads[name](plain.features[name])) for name in NAMES}
    whole = [clip for clip in range(5) if not {("rgb", clip), ("audio", clip)} & set(absent)]
    terms = []
    for query, key in (NAMES, NAMES[::-1]):
        for clip in whole:
            for k in range(3):
                positive = (rows[query][clip, k] @ rows[key][clip, k] / 0.05).exp()
                others = [
                    (rows[query][clip, k] @ rows[key][other, j] / 0.05).exp()
                    for other in whole
                    if other != clip
                    for j in range(3)
                ]
                terms.append(-(positive / (positive + torch.stack(others).sum())).log())
    expected = torch.stack(rebuilt).mean() + 0.5 * torch.stack(terms).mean()
    assert_equation(outputs["loss"], expected, task, {"plain": plain})
    torch.testing.assert_close(outputs["rebuilt"], torch.stack(rebuilt).mean().detach())


def test_a_hidden_tokens_own_feature_is_not_seen(leaves: Callable[..., Encoded]) -> None:
    torch.manual_seed(0)
    task = MaskedLatent(NAMES, 8, 3).double()
    plain = leaves(names=NAMES)
    hidden = drawn(task, plain)
    task({"plain": plain, "teacher": leaves(names=NAMES, seed=1)}, torch.Generator().manual_seed(5))[
        "loss"
    ].backward()
    for m, name in enumerate(NAMES):
        gradient = plain.features[name].grad
        assert gradient is not None
        assert not bool(gradient[hidden[..., m]].any())
        assert bool(gradient[~hidden[..., m]].any())


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_how_many_are_hidden(share: float) -> None:
    present = torch.rand(40, 3, 4, generator=torch.Generator().manual_seed(0)) < 0.6
    present[0], present[1] = False, False
    present[1, 0, 0] = True
    hidden = hide(present, share, torch.Generator().manual_seed(1))
    assert not bool((hidden & ~present).any())
    for clip in range(40):
        count = int(present[clip].sum())
        wanted = min(max(round(share * count), 1), max(count - 1, 0))
        assert int(hidden[clip].sum()) == wanted


@pytest.mark.parametrize("kind", [MaskedLatent, ContrastiveMasked])
def test_nothing_present_is_zero_with_gradient(
    kind: type[MaskedLatent | ContrastiveMasked], leaves: Callable[..., Encoded]
) -> None:
    task = kind(NAMES, 8, 3).double()
    plain = leaves(names=NAMES, absent=[(name, clip) for name in NAMES for clip in range(5)])
    outputs = task({"plain": plain, "teacher": leaves(names=NAMES, seed=1)}, torch.Generator())
    outputs["loss"].backward()
    assert float(outputs["loss"].detach()) == 0
    assert all(p.grad is not None and not bool(p.grad.any()) for p in task.parameters())
