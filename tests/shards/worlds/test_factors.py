"""The bits, the streams that carry them, the class tables, and the corruption laws."""

import numpy as np
import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.worlds.factors import CARRIED, PRESETS, WORDS, Law, carried_bits, preset_named, symbols

CARRIERS = {
    "V": {"rgb"},
    "A": {"audio"},
    "Z": {"depth"},
    "M": {"rgb", "flow", "depth"},
    "P": {"rgb", "depth", "audio"},
    "T": {"rgb", "flow", "depth", "audio"},
    "S": {"audio"},
    "C": {"depth", "audio"},
}


def test_every_bit_is_carried_by_its_streams_only():
    assert {bit: {stream for stream in CARRIED if bit in CARRIED[stream]} for bit in WORDS} == CARRIERS


def test_classes_are_distinct_and_named():
    for preset, bits, classes in (
        ("impact12", "VAZMPS", 12),
        ("strike", "C", 2),
        ("impact32", "VAZMS", 32),
        ("chorus", "PT", 4),
        ("solo", "VAZ", 8),
        ("place", "VAZ", 8),
        ("duet", "S", 2),
        ("melee", "MPA", 8),
    ):
        chosen = PRESETS[preset]
        assert chosen.bits == bits
        assert len(set(chosen.classes)) == len(set(chosen.table)) == classes
        assert all(len(row) == len(bits) for row in chosen.table)
        assert not {"S", "T"} <= set(bits), "a redrawn pace leaves the phase undefined"


def test_each_kind_of_impact12_differs_from_wood_in_one_way():
    chosen = PRESETS["impact12"]
    rows = dict(zip(chosen.classes, chosen.table, strict=True))
    assert rows["wood_tap"] == (0, 0, 0, 1, 0, 0)
    assert rows["painted_slam"] == (1, 0, 0, 1, 1, 0)
    changed = {
        kind: [bit for bit, a, b in zip(chosen.bits, rows[f"{kind}_tap"], rows["wood_tap"], strict=True) if a != b]
        for kind in ("metal", "left", "near", "late", "painted")
    }
    assert changed == {"metal": ["A"], "left": ["M"], "near": ["Z"], "late": ["S"], "painted": ["V"]}


def test_strike_names_contact_and_pass():
    assert dict(zip(PRESETS["strike"].classes, PRESETS["strike"].table, strict=True)) == {
        "contact": (1,),
        "pass": (0,),
    }


def test_timing_of_a_sound_counts_only_with_a_picture():
    chosen = PRESETS["impact12"]
    assert carried_bits(chosen, "audio", {"audio"}) == "AP"
    assert carried_bits(chosen, "audio", {"audio", "flow"}) == "APS"
    assert carried_bits(chosen, "audio", {"audio", "flow"}, late=True) == "AP"
    assert carried_bits(chosen, "depth", {"depth", "audio"}) == "ZMP"


def test_symbols_are_equal_where_the_shown_bits_are():
    chosen = PRESETS["impact12"]
    for stream, shown in {"rgb": "VMP", "flow": "M", "depth": "ZMP", "audio": "APS"}.items():
        found = symbols(chosen, stream, ("rgb", "flow", "depth", "audio"))
        rows = [tuple(row[chosen.bits.index(bit)] for bit in shown) for row in chosen.table]
        for i in range(12):
            for j in range(12):
                assert (found[i] == found[j]) == (rows[i] == rows[j])
    assert set(symbols(PRESETS["duet"], "rgb", ("rgb",))) == {0}


@pytest.mark.parametrize("law", [Law(rho=0.3), Law("spotlight"), Law("one_bad")])
def test_draws_follow_the_pattern_table(law):
    streams = ("rgb", "depth", "audio")
    patterns = law.patterns(streams)
    assert sum(chance for _, chance in patterns) == pytest.approx(1)
    rng = np.random.default_rng(0)
    drawn = [law.draw(rng, streams) for _ in range(6000)]
    for pattern, chance in patterns:
        share = sum(one == pattern for one in drawn) / len(drawn)
        assert abs(share - chance) < 4 * np.sqrt(chance * (1 - chance) / len(drawn))
    assert all(one in [pattern for pattern, _ in patterns] for one in drawn)


def test_an_additional_stream_changes_no_other():
    law = Law(rho=0.4)
    for seed in range(50):
        three = law.draw(np.random.default_rng(seed), ("rgb", "depth", "audio"))
        four = law.draw(np.random.default_rng(seed), ("rgb", "flow", "depth", "audio"))
        assert {name: four[name] for name in three} == three


def test_bad_requests_name_a_valid_choice():
    with pytest.raises(RequestError, match=r"unknown preset 'impact21'.*impact"):
        preset_named("impact21")
    with pytest.raises(RequestError, match=r"rho is 1\.5"):
        Law(rho=1.5)
    with pytest.raises(RequestError, match=r"quality is -0\.1"):
        Law(quality=-0.1)
    with pytest.raises(RequestError, match="spotlight"):
        Law("spotlights")  # pyright: ignore[reportArgumentType]


def test_a_violent_clip_shows_most_signs():
    chosen = PRESETS["melee"]
    violent = {name for name, found in zip(chosen.classes, chosen.violent, strict=True) if found}
    assert violent == {"right_large_long", "right_large_short", "right_small_long", "left_large_long"}
    assert [name for name, preset in PRESETS.items() if preset.signs] == ["melee"]
