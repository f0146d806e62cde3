"""The best accuracy any method can reach on ImpactWorld, exactly, for every subset of streams.

With y uniform over K classes, s_m(y) the symbol of stream m, p_m its marginal and z the corruption pattern, an
observer of the streams S sees, for each m in S, s_m(y) where z_m = 0 and a draw from p_m where z_m = 1. All figures
are sums over the finite table of (y, z, observation); nothing is sampled.
"""

from collections.abc import Collection
from functools import cache, reduce
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from ..errors import choice_error
from .factors import Flow, Law, Preset, ordered, preset_named, symbols

Table = NDArray[np.float64]


def subset_key(streams: Collection[str]) -> str:
    """`rgb+audio`: the streams in the fixed order rgb, flow, depth, audio."""
    return "+".join(ordered(streams))


def ceilings(
    preset: str, law: Law | None = None, *, flow: Flow | None = None, streams: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """Ceilings by subset of streams, keyed as by `subset_key`.

    `streams`: what the clips are made of, the preset's own by default. `flow`: `sensor`, a stream of its own with
    its own corruption, or `derived`, computed from rgb, so that it shows rgb's symbol and is corrupted with it;
    `None` takes flow as `sensor` if it is among the streams.

    Each entry holds accuracies: `blind` (z unknown), `told` (a hint q of the law's quality known), `aware` (z
    known), and `late_blind`, `late_told`, `late_aware`, which bound every rule on frozen posteriors of single
    streams. Two classes add `auc` and `ap` of the Bayes score for the first class, to each but `late_*`:
    `auc_blind` and so on. A preset of violent and calm classes adds `violence_blind`, the accuracy for that label,
    `violence_auc_blind`, and so on. Raises `RequestError` for an unknown preset or kind of flow.
    """
    chosen = preset_named(preset)
    if flow not in (None, "sensor", "derived"):
        raise choice_error("kind of flow", str(flow), ("sensor", "derived"))
    seen = set(chosen.streams if streams is None else streams)
    if flow == "sensor":
        seen.add("flow")
    # A derived flow is rgb once more: it has no z of its own, and adds nothing to what rgb shows.
    sources = seen - {"flow"} if flow == "derived" else seen
    shown = sources | ({"flow"} if flow == "derived" else set())
    law = law or Law()
    found: dict[str, dict[str, float]] = {}
    for size in range(1, len(shown) + 1):
        for subset in combinations(ordered(shown), size):
            bare = {"rgb" if stream == "flow" and flow == "derived" else stream for stream in subset}
            found[subset_key(subset)] = dict(_ceiling(preset, law, ordered(sources), ordered(bare)))
    return found


@cache
def _ceiling(preset: str, law: Law, sources: tuple[str, ...], subset: tuple[str, ...]) -> dict[str, float]:
    """The entry of one subset; `sources` are the streams the law ranges over."""
    chosen = preset_named(preset)
    found: dict[str, float] = {}
    for late in (False, True):
        for name, table in _tables(chosen, law, sources, subset, late=late).items():
            found[f"late_{name}" if late else name] = round(float(table.max(axis=0).sum()), 12)
            if len(chosen.classes) == 2 and not late:
                found[f"auc_{name}"], found[f"ap_{name}"] = ranking(table)
            if chosen.signs and not late:
                pair = np.stack([table[chosen.violent].sum(axis=0), table[~chosen.violent].sum(axis=0)])
                found[f"violence_{name}"] = round(float(pair.max(axis=0).sum()), 12)
                found[f"violence_auc_{name}"] = ranking(pair)[0]
    return found


def _tables(
    preset: Preset, law: Law, sources: tuple[str, ...], subset: tuple[str, ...], *, late: bool
) -> dict[str, Table]:
    """(K, observations) joint probability of class and observation: for `blind`, `told` and `aware` observers."""
    classes = len(preset.table)
    clean, guess = {}, {}
    for stream in subset:
        shown = symbols(preset, stream, subset, late=late)
        clean[stream] = np.eye(shown.max() + 1)[shown]
        guess[stream] = np.broadcast_to(clean[stream].mean(axis=0), clean[stream].shape)
    chances: dict[tuple[int, ...], float] = {}
    for pattern, chance in law.patterns(sources):
        z = tuple(pattern[stream] for stream in subset)
        chances[z] = chances.get(z, 0.0) + chance
    aware = {}
    for z, chance in chances.items():
        shown = [guess[stream] if bad else clean[stream] for stream, bad in zip(subset, z, strict=True)]
        aware[z] = chance / classes * reduce(lambda a, b: (a[:, :, None] * b[:, None]).reshape(classes, -1), shown)
    told = []
    for q in product((0, 1), repeat=len(subset)):
        joint = np.zeros_like(next(iter(aware.values())))
        for z, table in aware.items():
            right = sum(a == b for a, b in zip(z, q, strict=True))
            joint += law.quality**right * (1 - law.quality) ** (len(z) - right) * table
        told.append(joint)
    return {
        "blind": np.sum(list(aware.values()), axis=0),
        "told": np.concatenate(told, axis=1),
        "aware": np.concatenate(list(aware.values()), axis=1),
    }


def ranking(table: Table) -> tuple[float, float]:
    """Area under the ROC curve (ties count half) and average precision of the posterior of class 0.

    `table`: (2, observations) joint probabilities.
    """
    table = table[:, table.sum(axis=0) > 0]
    # Equal posteriors reached by different sums differ in the last digits: they are one threshold.
    score = np.round(table[0] / table.sum(axis=0), 10)
    levels, where = np.unique(-score, return_inverse=True)
    positive = np.bincount(where, table[0], len(levels)) / table[0].sum()
    negative = np.bincount(where, table[1], len(levels)) / table[1].sum()
    below = 1 - np.cumsum(negative)
    auc = float((positive * (below + negative / 2)).sum())
    hits, misses = np.cumsum(positive) * table[0].sum(), np.cumsum(negative) * table[1].sum()
    return round(auc, 12), round(float((positive * hits / (hits + misses)).sum()), 12)
