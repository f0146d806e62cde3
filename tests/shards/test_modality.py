"""The table of modalities."""

import pytest
from modalgate.shards.errors import RequestError
from modalgate.shards.modality import (
    MODALITIES,
    Modality,
    declare,
    declared_among,
    modality,
    plain_modality,
    shown_by,
    sources_of,
)


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


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("thermal=video", Modality("thermal", "video", 1, "thermal.mkv", None, "", 0.0, 65535.0)),
        ("wide=video:3", Modality("wide", "video", 3, "wide.mp4", None, "", 0.0, 255.0)),
        ("mic2=audio", Modality("mic2", "audio", 1, "mic2.wav", 16000.0, "", -1.0, 1.0)),
        (" radar=signal:2@12.5 ", Modality("radar", "signal", 2, "radar.npy", 12.5, "", -1e6, 1e6)),
    ],
)
def test_a_text_declares_a_modality(own_table: None, text: str, entry: Modality) -> None:
    assert plain_modality(text) == entry
    declare(entry)
    # Again the same, as when several folders of shards are read.
    declare(plain_modality(text))
    assert modality(entry.name) == entry
    assert declared_among(["rgb", entry.name, "flow"]) == (entry,)


def test_another_form_is_refused() -> None:
    for text in (
        "radar",
        "radar=lidar",
        "radar=signal:2",
        "radar=signal@x",
        "mic2=audio@8000",
        "thermal=video:1@5",
        "=audio",
        "",
    ):
        with pytest.raises(RequestError, match="declares no modality: give NAME=KIND, such as thermal=video"):
            plain_modality(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("depth=signal:2@5", "modality 'depth' is already known as video of 1 channel"),
        ("video=video", "'video' cannot name a modality"),
        ("Radar=audio", "'Radar' cannot name a modality"),
        ("../x=audio", "cannot name a modality"),
        ("radar=video:2", "cannot be video of 2 channels"),
        ("radar=audio:2", "cannot be audio of 2 channels"),
        ("radar=signal:0@5", "cannot be signal of 0 channels"),
        ("radar=signal:2@0", "cannot be signal of 2 channels"),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(own_table: None, text: str, said: str) -> None:
    before = dict(MODALITIES)
    with pytest.raises(RequestError, match=said):
        declare(plain_modality(text))
    assert before == MODALITIES


def test_a_member_is_named_after_its_modality(own_table: None) -> None:
    for suffix in ("rgb.mp4", "radar", "radar.tar.npy", "radar/x.npy", "../radar.npy"):
        with pytest.raises(RequestError, match="and member"):
            declare(Modality("radar", "signal", 2, suffix, 20.0, "", -1, 1))
    with pytest.raises(RequestError, match="unknown modality 'nothing'"):
        declare(Modality("x_flow", "video", 2, "x_flow.mp4", None, "", -1, 1, flow_of="nothing"))
    declare(plain_modality("thermal=video"))
    flow = Modality("thermal_flow", "video", 2, "thermal_flow.mp4", None, "pixel/frame", -64, 64, flow_of="thermal")
    declare(flow)
    assert declared_among(["thermal_flow"]) == (modality("thermal"), flow)
