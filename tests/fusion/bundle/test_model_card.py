"""The model card states contents, metrics and limits of a bundle."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.bundle.bundle_files import CARD
from modalgate.fusion.classifier import Classifier
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import clip_application


@pytest.fixture
def card(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path) -> Callable[..., str]:
    """`card(classifier, **fields of the bundle)`: the card's text."""

    def write(classifier: bool, **fields: object) -> str:
        backbone = tiny_backbone()
        model = Classifier(backbone, ["calm", "fight"]) if classifier else backbone
        bundle = Bundle(model, tiny_clip, 3, "violence" if classifier else None, **fields)  # pyright: ignore
        save_bundle(bundle, tmp_path / "bundle")
        return (tmp_path / "bundle" / CARD).read_text()

    return write


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_every_section_has_the_recorded_values(card: Callable[..., str]) -> None:
    text = card(
        True,
        provenance={"data": "market: 120 clips", "steps": 7},
        metrics={"auc": 0.87512, "false alarms per hour": 12.0},
        licence="CC-BY-4.0",
    )
    assert "- Classes (violence): calm, fight" in text
    assert "- data: market: 120 clips" in section(text, "Data and training")
    assert section(text, "Metrics").strip().splitlines() == ["- auc: 0.8751", "- false alarms per hour: 12"]
    assert section(text, "Licence").strip() == "CC-BY-4.0"
    assert "with consent" in section(text, "Intended use")
    limits = section(text, "Limits")
    assert "Surveillance: do not use it to identify" in limits
    assert "Assisted living: it is not a medical device" in limits
    assert "load_bundle" in section(text, "Loading")


def test_header_is_readable_by_model_hubs(card: Callable[..., str]) -> None:
    header = yaml.safe_load(card(False, licence="Apache-2.0").split("---")[1])
    assert header["license"] == "apache-2.0"
    assert header["library_name"] == "modalgate"


def test_missing_records_are_stated(card: Callable[..., str]) -> None:
    text = card(False)
    assert "license:" not in text.split("---")[1]
    assert "Not stated" in section(text, "Licence")
    assert "treat the model as untested" in section(text, "Metrics")
    assert "Not recorded" in section(text, "Data and training")
    assert "load_encoder" in section(text, "Loading")


def test_card_describes_how_recordings_are_scored(card: Callable[..., str]) -> None:
    text = card(True, application=clip_application(3, [2.0, 4.0], 30.0))
    (line,) = [line for line in text.splitlines() if line.startswith("- Applied")]
    for part in ("up to 6 s as one clip", "pieces of 3 s, one every 1.5 s", "3 views averaged", "4 s at most"):
        assert part in line
    assert "as one clip" not in card(True)
