"""Fits the reliability gate to scores of clips that its experts have not seen."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ...fusion.mechanisms.reliability import ReliabilityGate, bounded
from ..metrics.calibration import fit_temperature

# Factors of the penalty on changes of the weights; held-out groups choose one.
PENALTIES = (0.1, 1.0, 10.0)
STEPS, EVERY, RATE = 150, 5, 0.01
# Share of clips in which one stream is corrupted, and of those that lose streams.
CORRUPTED, HIDDEN = 0.5, 0.2
# Draws of corruption and loss per clip.
DRAWS = 4


@dataclass(frozen=True)
class Evidence:
    """Scores of n clips in V views by the experts of M modalities, which have not seen these clips."""

    logits: Tensor
    """Class logits (n, V, M, C)."""
    present: Tensor
    """Whether each view has the modality (n, V, M)."""
    quality: Tensor
    """Measured quality of the streams (n, V, M, Q)."""
    label: Tensor
    """Class numbers (n,)."""
    groups: Sequence[str]
    """Group of each clip."""


@dataclass(frozen=True)
class Fitted:
    """What a fit chose. Losses are means of `-log p` of the true class over held-out clips."""

    penalty: float
    """Factor of the penalty on changes of the weights."""
    steps: int
    """Number of steps. 0: the product of the calibrated experts."""
    product_loss: float
    """Held-out loss of the product of the calibrated experts."""
    loss: float
    """Held-out loss of the gate."""
    temperatures: dict[str, float]
    """Temperature by modality."""


def fit_reliability(
    gate: ReliabilityGate, clean: Evidence, corrupted: Sequence[Evidence] = (), seed: int = 0
) -> Fitted:
    """Fits temperatures and networks of `gate` in place.

    - `clean`: scores by experts that have not seen the clips.
    - `corrupted`: the same clips with every stream corrupted, one per corruption. In half of the clips, the
      scores of one random stream are replaced by these.
    - `seed`: of the draws.

    The temperature of each modality minimises the cross-entropy of its own scores. Each network of the gate trains on
    all groups but one share of them and is validated on that share. Its loss is the mean of `-log p` of the true
    class, with probabilities averaged over views, plus a penalty times the mean square of its output. The penalty
    shrinks the gate to the product of its experts. Penalty and number of steps minimise the held-out loss of all
    networks together. With a single group no clips are left to train on: the gate is the product, and both losses are
    those of all clips.

    With `gate.supervision` above 0, that factor times `supervision_errors` is added to the loss, both in training and
    where penalty and steps are chosen. The returned losses do not contain it.
    """
    gate.set_temperatures(_temperatures(gate, clean))
    draws = _drawn(clean, corrupted, seed)
    with torch.no_grad():
        opinions = gate.opinions(draws.logits)
        signs = gate.signs(opinions, draws.present, draws.quality)
        _standardise(gate, signs, draws.present)
        counts = torch.bincount(clean.label, minlength=clean.logits.shape[-1]).float() + 1
        gate.nothing.copy_((counts / counts.sum()).log())
    held = _held_out(draws.groups, gate.members, seed)
    lowest, best, state, product = float("inf"), (float("nan"), PENALTIES[0], 0), gate.state_dict(), float("nan")
    for penalty in PENALTIES:
        trial = copy.deepcopy(gate)
        for step, loss, whole in _trained(trial, opinions, signs, draws, held, penalty):
            if step == 0:
                product = loss
            if whole < lowest:
                lowest, best, state = whole, (loss, penalty, step), copy.deepcopy(trial.state_dict())
    gate.load_state_dict(state)
    loss, penalty, step = best
    temperatures = dict(zip(gate.modalities, gate.temperature.tolist(), strict=True))
    return Fitted(penalty, step, product, loss, temperatures)


def supervision_errors(lifts: Tensor, offsets: Tensor, opinions: Tensor, present: Tensor, label: Tensor) -> Tensor:
    """How badly the weights predict which expert gives the true class (members, n).

    - `lifts`: logarithms of the weights (members, n, V, M).
    - `offsets` (members, M): log odds of the true class at weight 1.
    - `opinions` (n, V, M, C), `present` (n, V, M), `label` (n,): log probabilities, presence and class numbers.

    The prediction is `sigmoid(offset_m + log w_m)`. The target is the probability of the true class by expert m.
    Their cross-entropy is averaged over the views and modalities that a clip has. It is 0 for a clip without any.

    In Cao et al. 2024 (Predictive Dynamic Fusion) the weight itself is the predicted probability and stays below 1.
    Here it is proportional to the odds of the true class, so that a weight can also rise.
    """
    scores = offsets[:, None, None] + lifts
    errors = F.binary_cross_entropy_with_logits(scores, _true(opinions, label).expand_as(scores), reduction="none")
    return (errors * present).sum(dim=(-1, -2)) / present.sum(dim=(-1, -2)).clamp_min(1)


def _true(opinions: Tensor, label: Tensor) -> Tensor:
    """Probability of the true class (n, V, M) by every expert."""
    return opinions.exp()[torch.arange(len(label)), :, :, label]


def _first_offsets(opinions: Tensor, present: Tensor, label: Tensor, seen: Tensor) -> Tensor:
    """Log odds (members, M) of the mean probability of the true class, over the clips that each member trains on."""
    counted = seen[:, :, None, None] * present
    mean = (counted * _true(opinions, label)).sum(dim=(1, 2)) / counted.sum(dim=(1, 2)).clamp_min(1)
    return mean.clamp(1e-3, 1 - 1e-3).logit()


def _trained(
    gate: ReliabilityGate, opinions: Tensor, signs: Tensor, draws: Evidence, held: Tensor, penalty: float
) -> Iterator[tuple[int, float, float]]:
    """Trains all networks together. Before the first step and after some, yields the step, the held-out loss, and the
    same with supervision.
    """
    seen = (~held).float()
    offsets = _first_offsets(opinions, draws.present, draws.label, seen).requires_grad_()
    optimizer = torch.optim.Adam([*gate.gate_parameters(), *([offsets] if gate.supervision else [])], lr=RATE)

    def held_out(errors: Tensor) -> float:
        return float(((errors * held).sum(1) / held.sum(1)).mean().detach())

    for step in range(STEPS + 1):
        changes = gate.changes(signs, draws.present)
        lifts = gate.scale[:, None, None] + changes
        pooled = gate.join(opinions, lifts, draws.present.expand(lifts.shape), apart=True).embedding
        # The clip's probability is the mean over its views, as in evaluation.
        chances = pooled.log_softmax(dim=-1).logsumexp(dim=-2) - np.log(pooled.shape[-2])
        errors = -chances[:, torch.arange(len(draws.label)), draws.label]
        whole = errors
        if gate.supervision:
            told = supervision_errors(bounded(lifts), offsets, opinions, draws.present, draws.label)
            whole = errors + gate.supervision * told
        if step % EVERY == 0:
            yield step, held_out(errors), held_out(whole)
        if not bool(seen.any()):
            return
        change = (changes.square() * draws.present).sum(dim=(-1, -2)) / draws.present.sum(dim=(-1, -2)).clamp_min(1)
        loss = ((whole + penalty * change) * seen).sum(1) / seen.sum(1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()


def _temperatures(gate: ReliabilityGate, clean: Evidence) -> dict[str, float]:
    found = {}
    for place, name in enumerate(gate.modalities):
        there = clean.present[:, :, place]
        probabilities = clean.logits[:, :, place].softmax(dim=-1)[there].double().numpy()
        labels = clean.label[:, None].expand(there.shape)[there].numpy()
        found[name] = fit_temperature(probabilities, labels) if len(labels) else 1.0
    return found


def _drawn(clean: Evidence, corrupted: Sequence[Evidence], seed: int) -> Evidence:
    """The clips `DRAWS` times, each time with other random corruptions and losses of streams."""
    generator = np.random.default_rng([seed, 5])
    count, _, modalities = clean.present.shape
    parts = []
    for _ in range(DRAWS):
        logits, quality, present = clean.logits.clone(), clean.quality.clone(), clean.present.clone()
        chosen = torch.from_numpy(generator.random(count) < (CORRUPTED if corrupted else 0.0))
        level = torch.from_numpy(generator.integers(max(len(corrupted), 1), size=count))
        place = random_place(generator, present.any(dim=1).numpy())
        for number, other in enumerate(corrupted):
            for column in range(modalities):
                rows = chosen & (level == number) & (place == column)
                logits[rows, :, column] = other.logits[rows, :, column]
                quality[rows, :, column] = other.quality[rows, :, column]
        kept = torch.from_numpy(generator.random((count, modalities)) < 0.5)
        left = present & kept[:, None]
        losing = torch.from_numpy(generator.random(count) < HIDDEN) & left.any(dim=-1).all(dim=-1)
        present = torch.where(losing[:, None, None], left, present)
        parts.append(replace(clean, logits=logits, quality=quality, present=present))
    return join_evidence(parts)


def random_place(generator: np.random.Generator, present: NDArray[np.bool_]) -> Tensor:
    """Returns the number of a random present modality of each clip (n,), from presence (n, M).

    A clip without any gets a random number.
    """
    draws = generator.random(present.shape)
    return torch.from_numpy(np.where(present, draws, draws - 1).argmax(axis=1))


def join_evidence(parts: Sequence[Evidence]) -> Evidence:
    """Concatenates the evidence of several batches."""
    return Evidence(
        torch.cat([part.logits for part in parts]),
        torch.cat([part.present for part in parts]),
        torch.cat([part.quality for part in parts]),
        torch.cat([part.label for part in parts]),
        [group for part in parts for group in part.groups],
    )


def _standardise(gate: ReliabilityGate, signs: Tensor, present: Tensor) -> None:
    for place in range(signs.shape[-2]):
        rows = signs[:, :, place][present[:, :, place]]
        if len(rows):
            gate.centre[place] = rows.mean(dim=0)
            gate.deviation[place] = rows.std(dim=0, unbiased=False).clamp_min(1e-3)


def _held_out(groups: Sequence[str], members: int, seed: int) -> Tensor:
    """Which clips each network is validated on (members, n): a share of the groups, all of them in turn."""
    names = sorted(set(groups))
    order = np.random.default_rng([seed, 6]).permutation(len(names))
    folds: NDArray[np.int64] = np.empty(len(names), dtype=np.int64)
    count = min(members, len(names))
    folds[order] = np.arange(len(names)) % count
    number = {name: int(fold) for name, fold in zip(names, folds, strict=True)}
    fold = torch.tensor([number[group] for group in groups])
    return torch.stack([fold == member % count for member in range(members)])
