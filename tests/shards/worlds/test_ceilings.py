"""Exact ceilings: known values, closed forms, and a simulation with a naive Bayes-optimal observer."""

from functools import cache
from itertools import combinations

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.worlds.ceilings import ceilings, ranking, subset_key
from modalgate.shards.worlds.factors import CARRIED, PRESETS, Law, carried_bits
from sklearn.metrics import average_precision_score, roc_auc_score

# subset: clean late, clean, then blind and aware at rho .25 and .40.
IMPACT12 = {
    "rgb": (0.500, 0.500, 0.396, 0.396, 0.333, 0.333),
    "depth": (0.500, 0.500, 0.396, 0.396, 0.333, 0.333),
    "audio": (0.333, 0.333, 0.271, 0.271, 0.233, 0.233),
    "flow": (0.167, 0.167, 0.146, 0.146, 0.133, 0.133),
    "rgb+flow": (0.500, 0.500, 0.401, 0.411, 0.340, 0.353),
    "flow+depth": (0.500, 0.500, 0.401, 0.411, 0.340, 0.353),
    "rgb+depth": (0.667, 0.667, 0.523, 0.568, 0.437, 0.493),
    "flow+audio": (0.500, 0.667, 0.500, 0.505, 0.407, 0.413),
    "rgb+audio": (0.667, 0.833, 0.620, 0.661, 0.500, 0.553),
    "depth+audio": (0.667, 0.833, 0.620, 0.661, 0.500, 0.553),
    "rgb+flow+depth": (0.667, 0.667, 0.534, 0.572, 0.446, 0.501),
    "rgb+flow+audio": (0.667, 0.833, 0.643, 0.689, 0.525, 0.585),
    "flow+depth+audio": (0.667, 0.833, 0.643, 0.689, 0.525, 0.585),
    "rgb+depth+audio": (0.833, 1.000, 0.779, 0.822, 0.631, 0.701),
    "rgb+flow+depth+audio": (0.833, 1.000, 0.789, 0.828, 0.645, 0.714),
}


def test_impact12_table():
    clean, quarter, forty = (ceilings("impact12", Law(rho=rho)) for rho in (0.0, 0.25, 0.40))
    assert set(clean) == set(IMPACT12)
    for subset, expected in IMPACT12.items():
        found = (
            clean[subset]["late_aware"],
            clean[subset]["blind"],
            quarter[subset]["blind"],
            quarter[subset]["aware"],
            forty[subset]["blind"],
            forty[subset]["aware"],
        )
        assert found == pytest.approx(expected, abs=0.00051), subset


@pytest.mark.parametrize(
    ("law", "one", "two", "three"),
    [
        (Law(rho=0.3), 0.775, (0.775, 0.9325), (0.8971, 0.9797)),
        (Law(rho=0.5), 0.625, (0.625, 0.8125), (0.7422, 0.9062)),
        (Law(rho=0.7), 0.475, (0.475, 0.6325), (0.5498, 0.7428)),
        (Law("spotlight"), 0.5, (0.5, 0.75), (0.5625, 1.0)),
        (Law("one_bad"), 0.75, (0.75, 1.0), (1.0, 1.0)),
    ],
)
def test_chorus_laws(law, one, two, three):
    found = ceilings("chorus", law)
    for name in ("rgb", "depth", "audio"):
        assert found[name]["blind"] == found[name]["aware"] == pytest.approx(one)
    for pair in ("rgb+depth", "rgb+audio", "depth+audio"):
        assert (found[pair]["blind"], found[pair]["aware"]) == pytest.approx(two)
    assert (found["rgb+depth+audio"]["blind"], found["rgb+depth+audio"]["aware"]) == pytest.approx(three, abs=6e-5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("independent", (0.7422, 0.7572, 0.7817, 0.8221, 0.8631, 0.8844, 0.9062)),
        ("spotlight", (0.5625, 0.6070, 0.6882, 0.7815, 0.8858, 0.9417, 1.000)),
    ],
)
def test_a_hint_helps_by_its_quality(name, expected):
    found = [
        ceilings("chorus", Law(name, 0.5, quality))["rgb+depth+audio"]["told"]
        for quality in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
    ]
    assert found == pytest.approx(expected, abs=6e-5)


def test_solo_gains_nothing_from_knowing():
    clean, spoiled = ceilings("solo"), ceilings("solo", Law(rho=0.3))
    for subset, entry in spoiled.items():
        size = subset.count("+") + 1
        assert clean[subset]["blind"] == pytest.approx((0.25, 0.5, 1.0)[size - 1])
        assert entry["blind"] == entry["aware"] == pytest.approx((0.2125, 0.3612, 0.6141)[size - 1], abs=6e-5)


def test_duet_needs_picture_and_sound_together():
    clean, spoiled = ceilings("duet"), ceilings("duet", Law(rho=0.3))
    for subset, entry in clean.items():
        names = subset.split("+")
        both = "audio" in names and len(names) > 1
        assert (entry["blind"], entry["late_aware"]) == pytest.approx((1.0 if both else 0.5, 0.5))
        assert spoiled[subset]["blind"] == pytest.approx(0.85 if both else 0.5)


def test_impact32_table():
    clean, spoiled = ceilings("impact32"), ceilings("impact32", Law(rho=0.25))
    expected = {"rgb": 0.125, "flow": 0.0625, "audio": 0.0625, "depth": 0.125, "rgb+audio": 0.5, "rgb+depth": 0.25}
    assert {subset: clean[subset]["blind"] for subset in expected} == pytest.approx(expected)
    assert clean["rgb+audio"]["late_aware"] == pytest.approx(0.25)
    every = "rgb+flow+depth+audio"
    assert (clean[every]["blind"], clean[every]["late_aware"]) == pytest.approx((1.0, 0.5))
    assert (spoiled[every]["blind"], spoiled[every]["aware"]) == pytest.approx((0.6086, 0.6205), abs=6e-5)


def test_strike():
    clean, spoiled = ceilings("strike"), ceilings("strike", Law(rho=0.3))
    accuracy = {"rgb": 0.5, "flow": 0.5, "audio": 0.5, "depth": 1.0, "rgb+flow": 0.5, "rgb+audio": 1.0}
    assert {subset: clean[subset]["blind"] for subset in accuracy} == pytest.approx(accuracy)
    assert clean["rgb+audio"]["late_aware"] == pytest.approx(0.5)
    assert (clean["rgb"]["auc_blind"], clean["depth"]["auc_blind"]) == pytest.approx((0.5, 1.0))
    all_three = spoiled["rgb+depth+audio"]
    assert (all_three["blind"], all_three["aware"]) == pytest.approx((0.85, 0.955))
    assert (all_three["auc_blind"], all_three["auc_aware"]) == pytest.approx((0.939, 0.996), abs=6e-4)


def test_melee_survives_the_loss_of_picture_or_depth():
    found = ceilings("melee")
    alone = {name: found[name] for name in ("rgb", "depth", "audio", "rgb+depth")}
    assert all(entry["aware"] == pytest.approx(0.5) for entry in alone.values())
    # Two signs of three are visible: in half of the clips they agree, in the others the third decides.
    assert all(entry["violence_aware"] == pytest.approx(0.75) for entry in alone.values())
    assert all(entry["violence_auc_aware"] == pytest.approx(0.875) for entry in alone.values())
    for subset in ("rgb+audio", "depth+audio", "rgb+depth+audio"):
        assert found[subset]["aware"] == found[subset]["violence_aware"] == pytest.approx(1)
        assert found[subset]["violence_auc_aware"] == pytest.approx(1)


def test_one_redundant_bit_by_formula():
    for rho in (0.1, 0.37, 0.8):
        found, p = ceilings("strike", Law(rho=rho)), 1 - rho / 2
        assert found["depth"]["blind"] == pytest.approx(p)
        assert found["depth+audio"]["blind"] == pytest.approx(p)
        assert found["depth+audio"]["aware"] == pytest.approx(1 - rho**2 / 2)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("law", [Law(rho=0.35, quality=0.8), Law("spotlight", quality=0.7), Law("one_bad")])
def test_more_knowledge_is_never_worse(preset, law):
    found = ceilings(preset, law)
    slack = 1e-9
    for subset, entry in found.items():
        assert entry["aware"] + slack >= entry["told"] >= entry["blind"] - slack
        for observer in ("blind", "told", "aware"):
            assert entry[observer] + slack >= entry[f"late_{observer}"]
        names = subset.split("+")
        for smaller in combinations(names, len(names) - 1):
            if smaller:
                assert entry["blind"] + slack >= found[subset_key(smaller)]["blind"]
                assert entry["aware"] + slack >= found[subset_key(smaller)]["aware"]


@pytest.mark.parametrize("law", [Law(rho=0.4), Law("one_bad"), Law("spotlight")])
def test_derived_flow_is_a_copy_of_rgb(law):
    derived, without = (
        ceilings("impact12", law, flow="derived"),
        ceilings("impact12", law, streams=CARRIED.keys() - {"flow"}),
    )
    assert derived["flow"] == without["rgb"]
    assert derived["rgb+flow"] == without["rgb"]
    assert derived["rgb+flow+depth+audio"] == without["rgb+depth+audio"]
    assert derived["flow+audio"] == without["rgb+audio"]
    assert len(derived) == 15


def test_flow_can_be_added_as_a_sensor():
    assert "flow" not in ceilings("chorus")
    assert ceilings("chorus", flow="sensor")["flow"]["blind"] == pytest.approx(0.5)
    with pytest.raises(RequestError, match="kind of flow 'sensed'"):
        ceilings("chorus", flow="sensed")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("preset", "law", "subset"),
    [
        ("impact12", Law(rho=0.25), ("rgb", "flow", "depth", "audio")),
        ("chorus", Law("spotlight"), ("rgb", "depth", "audio")),
        ("impact32", Law(rho=0.4), ("flow", "depth", "audio")),
        ("strike", Law("one_bad"), ("rgb", "audio")),
    ],
)
def test_simulated_observers_reach_the_ceiling(preset, law, subset):
    """Draws classes, patterns and false hints, decides by a posterior written as loops, and counts."""
    chosen, draws = PRESETS[preset], 12000
    classes, rng = len(chosen.table), np.random.default_rng(1)

    @cache
    def symbol(stream, label):
        return tuple(chosen.table[label][chosen.bits.index(bit)] for bit in carried_bits(chosen, stream, subset))

    @cache
    def guessed(stream, one):
        return sum(symbol(stream, other) == one for other in range(classes)) / classes

    def likelihood(seen, label, pattern):
        result = 1.0
        for stream, one in zip(subset, seen, strict=True):
            result *= guessed(stream, one) if pattern[stream] else symbol(stream, label) == one
        return result

    @cache
    def blind(seen):
        posterior = [
            sum(chance * likelihood(seen, label, pattern) for pattern, chance in law.patterns(chosen.streams))
            for label in range(classes)
        ]
        return int(np.argmax(np.round(posterior, 12)))

    @cache
    def aware(seen, z):
        pattern = dict(zip(chosen.streams, z, strict=True))
        return int(np.argmax(np.round([likelihood(seen, label, pattern) for label in range(classes)], 12)))

    hits = np.zeros(2)
    for _ in range(draws):
        label, pattern = int(rng.integers(classes)), law.draw(rng, chosen.streams)
        shown = {stream: int(rng.integers(classes)) if pattern[stream] else label for stream in subset}
        seen = tuple(symbol(stream, shown[stream]) for stream in subset)
        z = tuple(pattern[stream] for stream in chosen.streams)
        hits += [blind(seen) == label, aware(seen, z) == label]
    entry = ceilings(preset, law)[subset_key(subset)]
    assert hits / draws == pytest.approx([entry["blind"], entry["aware"]], abs=3 * np.sqrt(0.25 / draws))


def test_ranking_agrees_with_scikit_learn():
    """Whole-number tables are samples: each cell is a number of clips."""
    counts = np.random.default_rng(0).integers(0, 9, (2, 7))
    counts[:, 5] = 2 * counts[:, 2]  # a tie
    with np.errstate(invalid="ignore"):
        posterior = np.nan_to_num(counts[0] / counts.sum(axis=0))
    truth = np.concatenate([np.full(counts[row].sum(), 1 - row) for row in (0, 1)])
    score = np.concatenate([np.repeat(posterior, counts[row]) for row in (0, 1)])
    expected = (roc_auc_score(truth, score), average_precision_score(truth, score))
    assert ranking(counts / counts.sum()) == pytest.approx(expected)


def test_every_subset_has_one_entry():
    names = ["+".join(s) for n in range(1, 5) for s in combinations(("rgb", "flow", "depth", "audio"), n)]
    assert list(ceilings("duet")) == names
    assert all(0 <= value <= 1 for entry in ceilings("duet").values() for value in entry.values())
