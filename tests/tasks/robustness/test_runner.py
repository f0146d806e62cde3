"""A sweep equals running the whole model on altered media, condition by condition."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.shards.batch import Batch
from modalgate.shards.clip_spec import ClipSpec
from modalgate.shards.index.table import Index, load_index
from modalgate.shards.media.container_io import write_video, write_wave
from modalgate.shards.media.pack_settings import PackSettings
from modalgate.shards.packing.pack import pack
from modalgate.shards.stream import ClipRequest, ClipStream
from modalgate.shards.transforms import LOG_MEL_STD, Preparation
from modalgate.tasks.robustness.conditions import ALL, Condition, Sweep
from modalgate.tasks.robustness.corruptions import AXES, degrade
from modalgate.tasks.robustness.runner import Sweeper, classifier_answer

NAMES = ("rgb", "audio")
CLIPS, SILENT, MUTE, SHORT = 7, 1, 2, 3


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Seven clips of 1.5 s with noise for picture and sound. One is almost silent, one has no sound, one is short.

    Each clip is brighter than the last. Every sound but the almost silent one gets louder, by a factor e per second.
    """
    folder = tmp_path_factory.mktemp("sweep")
    lines = ["video,audio,label"]
    for kind in ("video", "audio"):
        (folder / "media" / kind).mkdir(parents=True)
    for number in range(CLIPS):
        generator = np.random.default_rng(number)
        seconds = 0.5 if number == SHORT else 1.5
        frames = generator.integers(0, 60 + 30 * number, (round(seconds * 10), 32, 32, 3), dtype=np.uint8)
        write_video(folder / "media" / "video" / f"c{number}.mkv", frames, 10.0)
        time = np.arange(round(seconds * 8000)) / 8000
        loudness = 3e-4 if number == SILENT else 0.05 * np.exp(time)
        sound = generator.normal(0, 1, len(time)).clip(-4, 4) * loudness
        if number != MUTE:
            write_wave(folder / "media" / "audio" / f"c{number}.wav", sound.astype(np.float32), 8000)
        lines.append(f"video/c{number}.mkv,{'' if number == MUTE else f'audio/c{number}.wav'},{'ab'[number % 2]}")
    (folder / "media" / "labels.csv").write_text("\n".join(lines) + "\n")
    settings = PackSettings(modalities=NAMES, size=32, fps=10.0, sample_rate=8000, silence_db=-90.0)
    pack(folder / "media", folder / "shards", settings, workers=1)
    return load_index(folder / "shards")


@pytest.fixture
def model(tiny_backbone: Callable[..., Backbone]) -> Callable[..., Classifier]:
    def build(fusion: str = "softmax", decision: str | None = None, **arguments: int) -> Classifier:
        backbone = tiny_backbone(NAMES, fusion=fusion, fusion_arguments=arguments)
        classifier = Classifier(backbone, ["a", "b"], decision=decision).eval()
        torch.manual_seed(3)
        for parameter in classifier.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        return classifier

    return build


def stream_of(index: Index, batch_size: int = 3, workers: int = 0) -> ClipStream:
    request = ClipRequest(NAMES, 2, 0.4, 2, 32)
    return ClipStream(index, request, batch_size, label="label", classes=["a", "b"], workers=workers)


def measured(classifier: Classifier, spec: ClipSpec, stream: ClipStream, *axes: str, seed: int = 0) -> Sweep:
    answer = classifier_answer(classifier)
    return Sweeper(classifier.backbone, answer, spec, stream, axes=axes, seed=seed).run()


def found(sweep: Sweep, condition: Condition) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    place = sweep.conditions.index(condition)
    return sweep.probabilities[place], sweep.weights[place], sweep.valid[place]


def levels(sweep: Sweep, condition: Condition) -> np.ndarray:
    """Returns the mean of each clip that the planted classifier saw, from its probability."""
    probability = found(sweep, condition)[0][:, 1].astype(np.float64)
    return np.log(probability / (1 - probability))


def number_of(key: str) -> int:
    return next(number for number in range(CLIPS) if f"c{number}" in key)


@torch.no_grad()
def whole(classifier: Classifier, spec: ClipSpec, batches: Sequence[Batch]) -> tuple[np.ndarray, np.ndarray]:
    """Runs the model on the media of these batches."""
    rows = [classifier(Preparation(spec)(batch), batch.present, batch.start) for batch in batches]
    probabilities = torch.cat([classifier.view_probabilities(scored.logits) for scored in rows])
    return probabilities.numpy(), torch.cat([scored.encoded.weights.mean(dim=1) for scored in rows]).numpy()


def close(sweep: Sweep, condition: Condition, expected: tuple[np.ndarray, np.ndarray]) -> None:
    probabilities, weights, valid = found(sweep, condition)
    assert valid.any()
    np.testing.assert_allclose(probabilities[valid], expected[0][valid], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(weights[valid], expected[1][valid], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fusion", "decision", "arguments"),
    [("softmax", None, {}), ("sigmoid", None, {"quality": 2}), ("cross", None, {}), ("static", "energy", {})],
)
def test_conditions_equal_the_model_on_altered_media(
    fusion: str,
    decision: str | None,
    arguments: dict[str, int],
    index: Index,
    model: Callable[..., Classifier],
    tiny_clip: ClipSpec,
) -> None:
    classifier, stream = model(fusion, decision, **arguments), stream_of(index)
    sweep = measured(classifier, tiny_clip, stream, "snr", "noise", "swap")
    batches = list(stream.evaluate())
    assert sweep.keys == [key for batch in batches for key in batch.key]
    assert sweep.labels.tolist() == [int(number) for batch in batches for number in batch.label]  # pyright: ignore

    def hidden(batch: Batch, *names: str) -> Batch:
        off = {name: torch.zeros_like(batch.present[name]) for name in names}
        return replace(batch, present=batch.present | off)

    def altered(batch: Batch, axis: str, level: float, *names: str) -> Batch:
        streams = {name: degrade(batch, name, axis, level, tiny_clip) for name in names if name in batch.streams}
        return replace(batch, streams=batch.streams | streams)

    clean = whole(classifier, tiny_clip, batches)
    close(sweep, Condition("missing", "rgb+audio"), clean)
    close(sweep, Condition("snr", "audio", float("inf")), clean)
    close(sweep, Condition("swap", "rgb", 0.0), clean)
    close(sweep, Condition("missing", "audio"), whole(classifier, tiny_clip, [hidden(b, "rgb") for b in batches]))
    noisy = [altered(batch, "snr", -5.0, "audio") for batch in batches]
    close(sweep, Condition("snr", "audio", -5.0), whole(classifier, tiny_clip, noisy))
    alone = [hidden(batch, "rgb") for batch in noisy]
    close(sweep, Condition("snr", "audio", -5.0, alone=True), whole(classifier, tiny_clip, alone))
    both = [altered(batch, "noise", 1.0, *NAMES) for batch in batches]
    close(sweep, Condition("noise", ALL, 1.0), whole(classifier, tiny_clip, both))


def test_silent_mute_and_short_clips_are_excluded(
    index: Index, model: Callable[..., Classifier], tiny_clip: ClipSpec
) -> None:
    sweep = measured(model(), tiny_clip, stream_of(index), "snr", "desync", "swap")
    place = {key: number for number, key in enumerate(sweep.keys)}
    key = {number: next(k for k in sweep.keys if f"c{number}" in k) for number in range(CLIPS)}

    def left_out(condition: Condition) -> set[int]:
        valid = found(sweep, condition)[2]
        return {number for number in range(CLIPS) if not valid[place[key[number]]]}

    assert left_out(Condition("snr", "audio", 10.0)) == {SILENT, MUTE}
    assert left_out(Condition("snr", "audio", float("inf"))) == {SILENT, MUTE}
    assert left_out(Condition("swap", "audio", 1.0)) == {MUTE}
    assert left_out(Condition("desync", "audio", 0.0)) == {MUTE}
    assert left_out(Condition("desync", "rgb", -0.1)) == {MUTE, SHORT}
    assert left_out(Condition("desync", "rgb", 0.5)) == {MUTE, SHORT}
    assert left_out(Condition("desync", "rgb", 1.0)) == set(range(CLIPS))
    assert left_out(Condition("missing", "audio")) == {MUTE}
    assert sweep.present[:, 1].tolist() == [key[MUTE] != name for name in sweep.keys]


def test_out_of_step_equals_decoding_at_the_shifted_time(
    index: Index, model: Callable[..., Classifier], tiny_clip: ClipSpec
) -> None:
    classifier, stream = model(), stream_of(index)
    sweep = measured(classifier, tiny_clip, stream, "desync")
    # Windows of 0.4 s can move by half a second within 1.5 s. That leaves a tenth for placing two views.
    views = {sample.key: np.array([0.5, 0.6]) for sample in index.samples}
    views |= {sample.key: np.array([0.0, 0.1]) for sample in index.samples if sample.duration < 1}
    for level in (-0.5, 0.2):
        late = {key: starts + level for key, starts in views.items()}
        batches = [
            replace(batch, streams=batch.streams | {"audio": moved.streams["audio"]})
            for batch, moved in zip(stream.evaluate(views), stream.evaluate(late), strict=True)
        ]
        close(sweep, Condition("desync", "audio", level), whole(classifier, tiny_clip, batches))


def test_a_later_sound_is_as_loud_as_planted(
    index: Index, planted_classifier: Callable[..., Classifier], tiny_clip: ClipSpec
) -> None:
    sweep = measured(planted_classifier(NAMES), tiny_clip, stream_of(index), "desync")
    level = {shift: levels(sweep, Condition("desync", "audio", shift, alone=True)) for shift in (-0.5, 0.0, 0.5)}
    valid = found(sweep, Condition("desync", "audio", 0.5, alone=True))[2]
    rows = [row for row, key in enumerate(sweep.keys) if valid[row] and number_of(key) != SILENT]
    assert len(rows) == CLIPS - 3
    # Amplitude grows by a factor e per second, and the level is ln(power) / LOG_MEL_STD.
    for shift in (-0.5, 0.5):
        np.testing.assert_allclose((level[shift] - level[0.0])[rows], 2 * shift / LOG_MEL_STD, atol=0.08)


def test_corruptions_are_equal_for_every_model_and_batch_order(
    index: Index, model: Callable[..., Classifier], tiny_clip: ClipSpec
) -> None:
    classifier = model()
    first = measured(classifier, tiny_clip, stream_of(index), "snr", "drop", "swap")
    turned = replace(index, samples=index.samples[::-1])
    second = measured(classifier, tiny_clip, stream_of(turned, batch_size=2), "snr", "drop", "swap")
    assert first.conditions == second.conditions
    order = [second.keys.index(key) for key in first.keys]
    np.testing.assert_array_equal(first.valid, second.rows(order).valid)
    np.testing.assert_allclose(first.probabilities, second.rows(order).probabilities, atol=1e-5)


def test_a_swapped_modality_is_from_another_class(
    index: Index, planted_classifier: Callable[..., Classifier], tiny_clip: ClipSpec
) -> None:
    sweep = measured(planted_classifier(NAMES), tiny_clip, stream_of(index), "swap")
    # Mean of a picture of `index`, normalised by mean 1 and deviation 50. Neighbours differ by 0.3.
    bright = (np.array([(59 + 30 * number) / 2 for number in range(CLIPS)]) - 1) / 50
    own = levels(sweep, Condition("missing", "rgb"))
    np.testing.assert_allclose(own, bright[[number_of(key) for key in sweep.keys]], atol=0.06)
    swap = Condition("swap", "rgb", 1.0, alone=True)
    swapped, valid = levels(sweep, swap), found(sweep, swap)[2]
    assert valid.all()
    for row, level in enumerate(swapped):
        source = np.abs(bright - level).argmin()
        assert level == pytest.approx(bright[source], abs=0.06)
        assert "ab"[source % 2] != sweep.classes[sweep.labels[row]]


def test_progress_counts_to_the_total(index: Index, model: Callable[..., Classifier], tiny_clip: ClipSpec) -> None:
    classifier, counts = model(), []
    sweeper = Sweeper(
        classifier.backbone, classifier_answer(classifier), tiny_clip, stream_of(index), progress=counts.append
    )
    sweep = sweeper.run()
    assert sum(counts) == sweeper.total
    assert {condition.axis for condition in sweep.conditions} == {"missing", *AXES} - {"holes", "axes"}
