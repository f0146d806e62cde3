"""Masked tasks against a loop over clips, each read without the tokens it lacks."""

from collections.abc import Callable, Collection

import pytest
import torch
from modalgate.fusion.backbone import Encoded
from modalgate.shards.errors import RequestError
from modalgate.ssl.pretext.masked import ContrastiveMasked, MaskedLatent, MaskedTask, hide
from modalgate.ssl.views.segment_summary import summary_size
from torch import Tensor

Leaves, Assert, Absent = Callable[..., Encoded], Callable[..., None], Collection[tuple[str | int, ...]]
Place = tuple[int, int, int]
NAMES, SEGMENTS = ("rgb", "flow", "audio"), 3
ABSENT: dict[str, Absent] = {
    "all there": (),
    "gaps": {("audio", 0), ("rgb", 2, 1), ("flow", 3)},
    "a clip of one token and one of none": {(n, 1) for n in NAMES}
    | {(n, 2) for n in ("rgb", "flow")}
    | {("audio", 2, 0), ("audio", 2, 2)},
}


def batch_of(leaves: Leaves, absent: Absent, clips: int = 5) -> dict[str, Encoded]:
    plain, slow = leaves(clips, SEGMENTS, NAMES, absent), leaves(clips, SEGMENTS, NAMES, absent, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name in NAMES:
        shape = (clips, SEGMENTS, summary_size(name))
        plain.facts[f"summary/{name}"] = torch.randn(shape, generator=generator, dtype=torch.float64)
    return {"plain": plain, "teacher": slow}


def predicted(task: MaskedTask, plain: Encoded, hidden: Tensor) -> dict[tuple[int, int, int], Tensor]:
    """What the transformer makes of every hidden token (clip, segment, modality), clip by clip."""
    model, found = task.predictor, {}
    for b in range(len(hidden)):
        tokens, places = [], []
        for k in range(SEGMENTS):
            for m, name in enumerate(NAMES):
                if plain.present[name][b, k]:
                    token = model.mask_token if hidden[b, k, m] else plain.features[name][b, k]
                    tokens.append(token + model.modality[m] + model.place[k, 0])
                    places.append((b, k, m))
        if places:
            outputs = model.layers(torch.stack(tokens)[None])[0]
            found |= {place: out for place, out in zip(places, outputs, strict=True) if hidden[place]}
    return found


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum() / (a.square().sum().sqrt() * b.square().sum().sqrt())


def assert_told_apart(outputs: dict[str, Tensor], guesses: dict[Place, Tensor], targets: dict[Place, Tensor]) -> None:
    """Accuracy and chance: whether the nearest target of the modality is the right one."""
    hits, chances = [], []
    for place, guess in guesses.items():
        rivals = [other for other in guesses if other[2] == place[2]]
        hits.append(max(rivals, key=lambda other: float(cosine(guess, targets[other]).detach())) == place)
        chances.append(1 / len(rivals))
    assert float(outputs["accuracy"]) == pytest.approx(sum(hits) / len(hits))
    assert float(outputs["chance"]) == pytest.approx(sum(chances) / len(chances))


@pytest.mark.parametrize("absent", ABSENT)
def test_masked_latent_and_its_gradients_equal_the_loop(absent: str, leaves: Leaves, assert_equation: Assert) -> None:
    torch.manual_seed(0)
    task, views = MaskedLatent(NAMES, 8, SEGMENTS).double(), batch_of(leaves, ABSENT[absent])
    outputs = task(views, torch.Generator().manual_seed(3))
    present = torch.stack([views["plain"].present[name] for name in NAMES], dim=-1)
    hidden = hide(present, 0.5, torch.Generator().manual_seed(3))
    guesses = {place: task.out(token) for place, token in predicted(task, views["plain"], hidden).items()}
    targets = {(b, k, m): views["teacher"].features[NAMES[m]][b, k].detach() for b, k, m in guesses}
    expected = torch.stack([2 - 2 * cosine(guess, targets[place]) for place, guess in guesses.items()]).mean()
    assert_equation(outputs["loss"], expected, task, views)
    assert_told_apart(outputs, guesses, targets)


@pytest.mark.parametrize("absent", ABSENT)
def test_contrastive_masked_and_its_gradients_equal_the_loop(
    absent: str, leaves: Leaves, assert_equation: Assert
) -> None:
    torch.manual_seed(0)
    task = ContrastiveMasked(NAMES, 8, SEGMENTS, contrast=0.3, hidden=6, dimension=4).double()
    views = batch_of(leaves, ABSENT[absent])
    plain = views["plain"]
    outputs = task({"plain": plain}, torch.Generator().manual_seed(3))
    present = torch.stack([plain.present[name] for name in NAMES], dim=-1)
    hidden = hide(present, 0.75, torch.Generator().manual_seed(3))
    rebuilt: dict[str, list[Tensor]] = {name: [] for name in NAMES}
    guesses: dict[Place, Tensor] = {}
    targets: dict[Place, Tensor] = {}
    for (b, k, m), token in predicted(task, plain, hidden).items():
        targets[b, k, m] = plain.facts[f"summary/{NAMES[m]}"][b, k]
        guesses[b, k, m] = task.decoders[NAMES[m]](token)
        rebuilt[NAMES[m]].append((guesses[b, k, m] - targets[b, k, m]).square().mean())
    errors = [torch.stack(terms).mean() for terms in rebuilt.values() if terms]
    contrasts = []
    for first, second in (("rgb", "flow"), ("rgb", "audio"), ("flow", "audio")):
        rows = [
            (b, k)
            for b in range(5)
            for k in range(SEGMENTS)
            if present[b, k, [NAMES.index(first), NAMES.index(second)]].all()
        ]
        terms = []
        for query, key in ((first, second), (second, first)):
            for one in rows:
                scores = {
                    other: cosine(
                        task.heads[query](plain.features[query][one]), task.heads[key](plain.features[key][other])
                    )
                    / 0.05
                    for other in rows
                    if other == one or other[0] != one[0]
                }
                terms.append(-(scores[one] - torch.stack(list(scores.values())).exp().sum().log()))
        contrasts.append(torch.stack(terms).sum() / (2 * len(rows)) if rows else torch.zeros((), dtype=torch.float64))
    expected = torch.stack(errors).mean() + 0.3 * torch.stack(contrasts).mean()
    assert_equation(outputs["loss"], expected, task, {"plain": plain})
    torch.testing.assert_close(outputs["rebuilt"], torch.stack(errors).mean().detach())
    for number, name in enumerate(NAMES):
        # Summaries are of one length, where the cosine, the distance and the product agree on the nearest.
        plain.facts[f"summary/{name}"] = torch.nn.functional.normalize(plain.facts[f"summary/{name}"], dim=-1)
        targets |= {p: plain.facts[f"summary/{name}"][p[0], p[1]] for p in targets if p[2] == number}
    outputs = task({"plain": plain}, torch.Generator().manual_seed(3))
    assert_told_apart(outputs, guesses, targets)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 1.0])
def test_share_of_present_tokens_is_hidden_and_never_all(share: float) -> None:
    present = torch.rand(40, SEGMENTS, 3, generator=torch.Generator().manual_seed(0)) < 0.6
    present[0], present[1] = False, False
    present[1, 0, 0] = True
    often = torch.zeros(present.shape)
    for seed in range(200):
        hidden = hide(present, share, torch.Generator().manual_seed(seed))
        assert not (hidden & ~present).any()
        for b, (taken, there) in enumerate(
            zip(hidden.sum((1, 2)).tolist(), present.sum((1, 2)).tolist(), strict=True)
        ):
            assert taken == max(min(max(round(share * there), 1), there - 1), 0), b
        often += hidden
    full = present.flatten(1).sum(1) > 1
    rates = [(often[b][present[b]] / 200) for b in full.nonzero()[:, 0].tolist()]
    assert max(float(rate.max() - rate.min()) for rate in rates) < 0.25, "no token is hidden more than another"


def test_without_hidden_tokens_the_loss_is_zero_with_gradient(leaves: Leaves, assert_waits: Assert) -> None:
    # One token of every clip is there: hidden, nothing would be left to predict it from.
    absent = {(n, b, k) for n in NAMES for b in range(4) for k in range(SEGMENTS) if (n, k) != ("rgb", 0)}
    for kind in (MaskedLatent, ContrastiveMasked):
        task = kind(NAMES, 8, SEGMENTS).double()
        assert_waits(task(batch_of(leaves, absent, clips=4), torch.Generator()), task)


def test_single_token_is_rejected() -> None:
    with pytest.raises(RequestError, match="at least two tokens"):
        MaskedLatent(("rgb",), 8, 1)
