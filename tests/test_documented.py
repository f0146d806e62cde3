"""The Python code of README.md and docs/ runs verbatim."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.launch.cli import main
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.media.container_io import write_video
from modalgate.shards.worlds.ceilings import ceilings
from modalgate.shards.worlds.factors import PRESETS
from modalgate.shards.worlds.scene import TWINS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = {
    f"{page.stem}-{number}": block
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    )
}


@pytest.fixture(scope="module")
def folder(
    tiny_encoder: Callable[..., EncoderSpec], tiny_clip: ClipSpec, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The files that the pages name: an encoder, a classifier, a film, its features, and shards."""
    folder = tmp_path_factory.mktemp("documented")
    torch.manual_seed(0)
    encoders = {"video": EncoderSpec("timm/test_convnext", pooling="mean"), "audio": tiny_encoder()}
    backbone = Backbone(("rgb", "audio"), BackboneSpec(width=8, encoders=encoders)).eval()
    save_bundle(Bundle(backbone, tiny_clip, 2), folder / "encoder")
    save_bundle(Bundle(Classifier(backbone, ["calm", "fight"]).eval(), tiny_clip, 2, "action"), folder / "classifier")
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (20, 32, 32, 3)).astype(np.uint8)
    sound = (generator.standard_normal(16000) * 0.1).astype(np.float32)
    write_video(folder / "film.mp4", pictures, 10, sound=sound, sample_rate=8000, sound_codec="aac")
    for name in ("features.parquet", "features.npz"):
        command = ["embed", str(folder / "encoder"), str(folder / "film.mp4"), str(folder / name), "--workers", "0"]
        assert main(command) == 0
    (folder / "films").mkdir()
    (folder / "films" / "film.mp4").write_bytes((folder / "film.mp4").read_bytes())
    command = ["pack", str(folder / "films"), str(folder / "shards"), "--size", "32", "--fps", "10", "--workers", "1"]
    assert main(command) == 0
    return folder


def test_readme_shows_bundle_and_single_network() -> None:
    readme = "".join(block for name, block in BLOCKS.items() if name.startswith("README"))
    assert "load_encoder(" in readme
    assert "create_model(" in readme


@pytest.mark.parametrize("name", BLOCKS)
def test_documented_block_runs_verbatim(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    block = BLOCKS[name]
    if '"rgb.safetensors"' in block:
        assert main(["export", "encoder", "rgb.safetensors", "--modality", "rgb", "--overwrite"]) == 0
        # The page shows what the command prints, but for the shape of this model's input.
        printed = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("    ")]
        shown = [line.partition("  #")[0] for line in block.splitlines() if line.startswith(("network", "features"))]
        assert shown == [line.partition("  #")[0] for line in printed]
    names: dict[str, Any] = {"inputs": torch.rand(2, 3, 32, 32)}
    exec(block, names)
    if "start.safetensors" in block:
        assert names["started"].network.state_dict()["conv1.0.weight"].shape[1] == 16
    if '"rgb.safetensors"' in block:
        assert names["features"].shape == (2, names["network"].num_features)
    if "pq.read_table(" in block:
        assert names["features"].shape == (9, 8)
        assert set(names["keys"]) == {"film.mp4"}
        assert names["made_of"]["windows"] == 9
        assert sum(names["gates"].values()) == pytest.approx(1, abs=1e-5)
    if "ClipStream(" in block:
        assert names["batch"].streams["rgb"].shape == (2, 3, 4, 3, 32, 32)
    if "encoder.embed(" in block:
        assert len(names["found"]) == 9
        assert names["found"].features.shape == (9, 8)


def test_the_page_of_worlds_has_every_preset_with_its_ceilings_and_every_twin() -> None:
    page = (ROOT / "docs" / "guides" / "data" / "worlds.md").read_text(encoding="utf-8")
    table = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("|")]
    rows = {cells[1].strip("`"): cells for cells in table}
    assert rows.keys() >= {*PRESETS, *TWINS}
    for name, preset in PRESETS.items():
        classes, singles, every = rows[name][2], rows[name][4], rows[name][5]
        assert int(re.split("[:,]", classes)[0]) == len(preset.classes)
        found = ceilings(name, flow="sensor")
        exact = [found[stream]["aware"] for stream in ("rgb", "flow", "depth", "audio")]
        assert [float(figure) for figure in singles.split(",")] == pytest.approx(exact, abs=0.0051)
        assert float(every) == found["rgb+flow+depth+audio"]["aware"]
