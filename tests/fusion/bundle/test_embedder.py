"""Features and gate weights of a file over time, in Python."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion import load_encoder
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.bundle.bundle import Bundle, save_bundle
from modalgate.fusion.bundle.embedder import PretrainedEncoder
from modalgate.fusion.classifier import Classifier
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.live.sliding import batch_windows, slide
from modalgate.shards.media.container_io import write_video
from modalgate.shards.transforms import Preparation

from .tensor_equality import same_tensors


@pytest.fixture
def folder(tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path) -> Path:
    classifier = Classifier(tiny_backbone(("rgb", "depth", "audio")), ["calm", "fight"])
    save_bundle(Bundle(classifier, tiny_clip, 3, "violence", "fight"), tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 255, (20, 32, 32, 3)).astype(np.uint8)
    sound = (generator.standard_normal(16000) * 0.1).astype(np.float32)
    write_video(tmp_path / "clip.mkv", pictures, 10, sound=sound, sample_rate=8000)
    return tmp_path / "clip.mkv"


def test_encoder_of_a_classifier_has_no_classifier(
    folder: Path, tiny_backbone: Callable[..., Backbone], tiny_clip: ClipSpec
) -> None:
    encoder = load_encoder(folder)
    assert isinstance(encoder.backbone, Backbone)
    assert not encoder.backbone.training
    assert same_tensors(encoder.backbone, tiny_backbone(("rgb", "depth", "audio")))
    assert (encoder.spec, encoder.segments, encoder.width) == (tiny_clip, 3, 8)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_every_window_is_encoded_and_absent_modalities_weigh_zero(folder: Path, video: Path, batch_size: int) -> None:
    encoder = load_encoder(folder)
    found = encoder.embed(video, batch_size=batch_size)
    pieces = slide({"video": video}, encoder.spec, encoder.modalities, encoder.application)
    windows = [view for piece in pieces for view in piece.views]
    batch = batch_windows(windows, encoder.modalities)
    with torch.no_grad():
        expected = encoder.backbone(Preparation(encoder.spec)(batch), batch.present, batch.start)
    assert len(found) == len(windows) == 9
    np.testing.assert_allclose(found.features, expected.embedding[:, 0].numpy(), atol=1e-5)
    np.testing.assert_allclose(found.weights.sum(axis=1), 1, atol=1e-5)
    assert found.present.tolist() == [[True, False, True]] * 9
    assert (found.weights[:, 1] == 0).all()
    np.testing.assert_allclose(found.start, np.arange(9) * 0.2)
    np.testing.assert_allclose(found.end - found.start, 0.4)


def test_window_features_are_those_of_its_time(
    planted_backbone: Callable[..., Backbone], tiny_clip: ClipSpec, tmp_path: Path
) -> None:
    """Every frame is brighter by 10 levels than the last."""
    pictures = np.broadcast_to((20 + 10 * np.arange(20))[:, None, None, None], (20, 32, 32, 3)).astype(np.uint8)
    write_video(tmp_path / "brighter.mkv", pictures, 10)
    encoder = PretrainedEncoder(planted_backbone(("rgb", "depth", "audio")).eval(), tiny_clip, 3)
    found = encoder.embed(tmp_path / "brighter.mkv")
    # Windows begin 0.2 s apart, and the deviation of the pictures is 50 levels.
    np.testing.assert_allclose(np.diff(found.features[:, 0]), [20 / 50] * 8, atol=0.05)


def test_further_file_of_another_modality(folder: Path, video: Path, tmp_path: Path) -> None:
    millimetres = np.random.default_rng(0).integers(0, 4000, (20, 32, 32)).astype(np.uint16)
    write_video(tmp_path / "depth.mkv", millimetres, 10, codec="ffv1", pixel_format="gray16le")
    found = load_encoder(folder).embed(str(video), hop=0.5, beside={"depth": tmp_path / "depth.mkv"})
    assert found.present.all()
    assert found.start.tolist() == [0, 0.5, 1.0, 1.5]
