"""Prediction over a recording against scoring the same windows from packed shards."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from modalgate.fusion.bundle.bundle import Bundle
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.gates import StaticFusion
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.clips.application import clip_application
from modalgate.shards.clips.piece import Piece
from modalgate.shards.errors import RequestError
from modalgate.shards.index.table import load_index
from modalgate.shards.live.pieces import recording_pieces
from modalgate.shards.live.sliding import slide
from modalgate.shards.media.container_io import write_video
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.shards.transforms import LOG_MEL_STD, Preparation
from modalgate.tasks.metrics.calibration import apply_temperature
from modalgate.tasks.prediction.window_scores import Prediction, predict, scorer_of

SECONDS, FPS, RATE = 0.5, 10.0, 16000
MODALITIES, GATES = ("rgb", "depth", "audio"), (1 / 6, 1 / 3, 1 / 2)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four windows of half a second. Pictures and depth rise by equal steps. Sound doubles its amplitude."""
    folder = tmp_path_factory.mktemp("recording")
    window = np.arange(20) // 5
    pictures = np.broadcast_to((40 + 50 * window)[:, None, None, None], (20, 32, 32, 3)).astype(np.uint8)
    # The same noise in every window, at twice the amplitude of the window before.
    noise = np.random.default_rng(0).standard_normal(RATE // 2)
    sound = np.concatenate([0.02 * 2.0**number * noise for number in range(4)]).astype(np.float32)
    (folder / "depth").mkdir()
    write_video(folder / "clip.mkv", pictures, FPS, sound=sound, sound_codec="pcm_s16le", sample_rate=RATE)
    millimetres = np.broadcast_to((1000 + 500 * window)[:, None, None], (20, 32, 32)).astype(np.uint16)
    write_video(folder / "depth" / "clip.mkv", millimetres, FPS, codec="ffv1", pixel_format="gray16le")
    (folder / "labels.csv").write_text("video,depth\nclip.mkv,depth/clip.mkv\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shards(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "packed"
    pack(recording, out, PackSettings(modalities=MODALITIES, size=32, fps=FPS), workers=1)
    return out


@pytest.fixture(scope="module")
def bundle(shards: Path, planted_classifier: Callable[..., Classifier]) -> Bundle:
    """P(fight) is the sigmoid of the sum of brightness, depth and loudness, weighted by `GATES`."""
    index = load_index(shards)
    classifier = planted_classifier(MODALITIES, ["calm", "fight"])
    assert isinstance(classifier.backbone.fusion, StaticFusion)
    with torch.no_grad():
        classifier.backbone.fusion.theta.copy_(torch.tensor(GATES).log())
    spec = ClipSpec(SECONDS, 5, 32, 32, FPS, RATE, index.settings.flow_bound, index.statistics)
    return Bundle(classifier, spec, 4, "violence", "fight")


def predicted(bundle: Bundle, files: dict[str, Path], hop: float | None = None) -> list[Prediction]:
    return list(predict(bundle, files, hop))


def test_windows_score_like_the_same_windows_of_packed_shards(recording: Path, shards: Path, bundle: Bundle) -> None:
    stream = ClipStream(load_index(shards), ClipRequest(MODALITIES, 4, SECONDS, 5, 32), 1)
    batch = next(stream.evaluate())
    with torch.no_grad():
        scored = bundle.model(Preparation(bundle.spec)(batch), batch.present, batch.start)
    files = {"video": recording / "clip.mkv", "depth": recording / "depth" / "clip.mkv"}
    windows = predicted(bundle, files, hop=0.5)
    assert [window.start for window in windows] == batch.start[0].tolist() == [0.0, 0.5, 1.0, 1.5]
    expected = scored.logits[0].softmax(-1)[:, 1].numpy()
    found = np.array([window.probabilities["fight"] for window in windows])
    # Shards store rgb as H.264, so it differs slightly. Depth and sound agree to the last bit.
    np.testing.assert_allclose(found, expected, atol=0.02)
    # Pictures and depth take four equally spaced values, which are normalised. Sound doubles its amplitude.
    step = [1 / np.std(np.arange(4))] * 2 + [2 * np.log(2) / LOG_MEL_STD]
    np.testing.assert_allclose(np.diff(np.log(found / (1 - found))), np.dot(GATES, step), atol=0.02)
    gates = np.array([list(window.gates.values()) for window in windows])
    np.testing.assert_allclose(gates, [GATES] * 4, atol=1e-6)


def test_the_default_step_is_half_a_window(recording: Path, bundle: Bundle) -> None:
    windows = predicted(bundle, {"video": recording / "clip.mkv"})
    assert [window.start for window in windows] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
    assert [window.end for window in windows] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    for window in windows:
        assert sum(window.probabilities.values()) == pytest.approx(1, abs=1e-6)


def test_a_missing_stream_is_named_and_has_no_weight(recording: Path, bundle: Bundle) -> None:
    for window in predicted(bundle, {"video": recording / "clip.mkv"}):
        assert window.present == ["rgb", "audio"]
        assert window.gates == pytest.approx({"rgb": 0.25, "depth": 0, "audio": 0.75}, abs=1e-6)


def test_an_encoder_without_classes_raises(recording: Path, bundle: Bundle) -> None:
    encoder = Bundle(bundle.backbone, bundle.spec, 4)
    with pytest.raises(RequestError, match="an encoder without classes"):
        predicted(encoder, {"video": recording / "clip.mkv"})


def test_the_batch_size_does_not_change_predictions(recording: Path, bundle: Bundle) -> None:
    files = {"video": recording / "clip.mkv"}
    one, all_at_once = (list(predict(bundle, files, 0.1, batch_size=size)) for size in (1, 100))
    assert [window.start for window in one] == [window.start for window in all_at_once]
    for mine, theirs in zip(one, all_at_once, strict=True):
        assert mine.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)


def test_pieces_before_an_error_are_predicted(
    recording: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_short(*arguments: object) -> object:
        yield from list(recording_pieces(*arguments))[:3]  # pyright: ignore
        raise ValueError("its tail is damaged")

    monkeypatch.setattr("modalgate.tasks.prediction.window_scores.recording_pieces", cut_short)
    found = []
    with pytest.raises(ValueError, match="tail is damaged"):
        found.extend(window.start for window in predict(bundle, {"video": recording / "clip.mkv"}))
    assert found == [0, 0.25, 0.5]


def test_a_piece_scores_the_mean_of_its_views(recording: Path, bundle: Bundle) -> None:
    """The score equals that of a clip at the same place, whatever else is in the batch."""
    files = {"video": recording / "clip.mkv"}
    pieces = replace(bundle, application=replace(clip_application(3, [1.0], 30.0), whole=0.0))
    scorer = scorer_of(pieces)
    for size in (1, 5):
        found = list(predict(pieces, files, batch_size=size))
        assert [(one.start, one.end, one.whole) for one in found] == [(0, 1, False), (0.5, 1.5, False), (1, 2, False)]
        for one in found:
            views = [scorer.score([view])[0][0] for view in _piece_at(recording, pieces, one.start).views]
            assert len(views) == 3
            assert list(one.probabilities.values()) == pytest.approx(np.mean(views, axis=0), abs=1e-5)


def _piece_at(recording: Path, bundle: Bundle, start: float) -> Piece:
    names, files = bundle.backbone.modalities, {"video": recording / "clip.mkv"}
    return next(piece for piece in slide(files, bundle.spec, names, bundle.application) if piece.start == start)


def test_a_temperature_only_adds_calibrated_probabilities(recording: Path, bundle: Bundle) -> None:
    files = {"video": recording / "clip.mkv"}
    plain = predicted(bundle, files)
    warm = predicted(replace(bundle, application=replace(bundle.application, temperature=3.0)), files)
    for mine, theirs in zip(warm, plain, strict=True):
        assert mine.probabilities == theirs.probabilities
        assert theirs.calibrated is None
        assert mine.calibrated is not None
        scores = np.array([list(mine.probabilities.values())])
        assert list(mine.calibrated.values()) == pytest.approx(apply_temperature(scores, 3.0)[0].tolist())
