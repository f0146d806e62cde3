"""The table of modalities."""

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.modality import MODALITIES, Modality, declare, modality, shown_by, sources_of


def test_every_entry_has_its_name_as_key_and_a_unique_suffix() -> None:
    assert all(entry.name == name for name, entry in MODALITIES.items())
    assert len({entry.suffix for entry in MODALITIES.values()}) == len(MODALITIES)
    assert all(entry.suffix.startswith(f"{name}.") for name, entry in MODALITIES.items())
    assert {name: entry.channels for name, entry in MODALITIES.items()} == {
        "rgb": 3,
        "flow": 2,
        "depth": 1,
        "depth_flow": 2,
        "audio": 1,
        "inertial": 6,
    }
    assert all(entry.low < entry.high for entry in MODALITIES.values())


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RequestError, match="unknown modality 'deph': did you mean 'depth'"):
        modality("deph")


def test_flow_is_computed_from_the_pictures_it_names() -> None:
    names = ("depth_flow", "audio", "rgb", "flow", "inertial")
    assert shown_by("rgb", names) == ("rgb", "flow")
    assert shown_by("depth", names) == ("depth_flow",)
    assert sources_of(names) == ("depth", "audio", "rgb", "inertial")


def test_a_declared_modality_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Modality("radar", "signal", 2, "radar.npy", 20.0, "metre/second", -50.0, 50.0)
    monkeypatch.setitem(MODALITIES, "radar", entry)
    monkeypatch.delitem(MODALITIES, "radar")
    declare(entry)
    assert modality("radar") is entry
