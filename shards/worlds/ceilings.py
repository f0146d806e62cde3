"""The best accuracy that any method can reach on ImpactWorld, exactly, for every subset of streams.

Let y be uniform over K classes, s_m(y) the symbol of stream m, p_m its marginal and z the corruption pattern. For
each stream m in S, an observer of S sees s_m(y) if z_m = 0, and a draw from p_m if z_m = 1. All numbers are sums over
the finite table of (y, z, observation); nothing is sampled.
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
    """Returns the streams joined in the fixed order rgb, flow, depth, audio.

    >>> subset_key({"audio", "rgb"})
    'rgb+audio'
    """
    return "+".join(ordered(streams))


def ceilings(
    preset: str, law: Law | None = None, *, flow: Flow | None = None, streams: Collection[str] | None = None
) -> dict[str, dict[str, float]]:
    """Returns the ceilings by subset of streams, with the keys of `subset_key`.

    - `law`: how streams are corrupted. Default: not at all.
    - `streams`: streams of the clips. Default: those of the preset.
    - `flow`: `sensor` is a separate stream with its own corruption. `derived` is computed from rgb, shows rgb's
      symbol and is corrupted with it. None: `sensor` if flow is among the streams.

    Each entry holds accuracies of observers who do not know z (`blind`), who know a hint q with the law's quality
    (`told`), or who know z (`aware`). `late_blind`, `late_told` and `late_aware` bound every rule on frozen
    posteriors of single streams.

    A preset with two classes adds AUC and average precision of the Bayes score for the first class: `auc_blind`,
    `ap_blind` and so on, but not for `late_*`. A preset with violent and calm classes adds accuracy and AUC for that
    label: `violence_blind`, `violence_auc_blind` and so on.

    Raises `RequestError` for an unknown preset or kind of flow.

    >>> ceilings("strike", streams=("rgb", "depth")).get("rgb").get("blind")
    0.5
    """
    chosen = preset_named(preset)
    if flow not in (None, "sensor", "derived"):
        raise choice_error("kind of flow", str(flow), ("sensor", "derived"))
    seen = set(chosen.streams if streams is None else streams)
    if flow == "sensor":
        seen.add("flow")
    # Derived flow is a copy of rgb: it has no z, and adds nothing to rgb.
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
    """Returns the entry of one subset. `sources`: the streams that the law covers."""
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
    """Returns joint probabilities (K, observations) of class and observation for each kind of observer."""
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
    """Returns the area under the ROC curve (ties count half) and the average precision of the posterior of class 0.

    `table`: joint probabilities (2, observations).
    """
    table = table[:, table.sum(axis=0) > 0]
    # Equal posteriors from different sums differ in the last digits. They are one threshold.
    score = np.round(table[0] / table.sum(axis=0), 10)
    levels, where = np.unique(-score, return_inverse=True)
    positive = np.bincount(where, table[0], len(levels)) / table[0].sum()
    negative = np.bincount(where, table[1], len(levels)) / table[1].sum()
    below = 1 - np.cumsum(negative)
    auc = float((positive * (below + negative / 2)).sum())
    hits, misses = np.cumsum(positive) * table[0].sum(), np.cumsum(negative) * table[1].sum()
    return round(auc, 12), round(float((positive * hits / (hits + misses)).sum()), 12)
