"""Scores of a cell for a classifier with known predictions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from modalgate.fusion.backbone import Backbone
from modalgate.fusion.classifier import Classifier
from modalgate.fusion.mechanisms.channel_gates import VectorGate
from modalgate.fusion.mechanisms.concat import GatedConcat
from modalgate.fusion.spec import BackboneSpec, EncoderSpec
from modalgate.tasks.fusion_study.feature_bank import StoredClips
from modalgate.tasks.fusion_study.study_cell import (
    judge_cell,
    mean_weights,
    recorded_weights,
    score_stored,
    shuffled_weights,
)
from modalgate.tasks.metrics.classification import top_k_accuracy
from numpy.typing import NDArray
from torch import Tensor

NAMES = ("rgb", "audio")
CLIPS = 40


@pytest.fixture
def clips() -> StoredClips:
    """Two classes in the first feature of rgb. Audio has no signal. 2 views with 1 token each."""
    torch.manual_seed(0)
    label = torch.arange(CLIPS) % 2
    streams = {name: torch.randn(CLIPS, 2, 2, 4) * 0.01 for name in NAMES}
    streams["rgb"][..., 0] += (label * 2.0 - 1)[:, None, None]
    present = {name: torch.ones(CLIPS, 2, dtype=torch.bool) for name in NAMES}
    keys = [f"clip-{number}" for number in range(CLIPS)]
    return StoredClips(streams, present, torch.zeros(CLIPS, 2, 2, 2), torch.zeros(CLIPS, 2), label, keys)


@pytest.fixture
def classifier() -> Callable[..., Classifier]:
    def build(fusion: str, decision: str | None = None) -> Classifier:
        encoders = {name: EncoderSpec("stored/4") for name in NAMES}
        torch.manual_seed(1)
        backbone = Backbone(NAMES, BackboneSpec(width=4, fusion=fusion, encoders=encoders))
        model = Classifier(backbone, ("calm", "fight"), unimodal=True, decision=decision)
        for name in NAMES:
            backbone.projections[name] = torch.nn.Linear(4, 4, bias=False)
            torch.nn.init.eye_(backbone.projections[name].weight)  # pyright: ignore
        sign = torch.tensor([[-9.0, 0, 0, 0], [9.0, 0, 0, 0]])
        with torch.no_grad():
            heads = [*model.unimodal.values(), *(() if decision else (model.head[-1],))]  # pyright: ignore
            for layer in heads:
                layer.weight.copy_(sign)
                layer.bias.zero_()
        return model

    return build


def test_a_planted_signal_is_found_and_lost_without_its_modality(
    clips: StoredClips, classifier: Callable[..., Classifier]
) -> None:
    swapped = clips.with_stream_of(
        StoredClips(
            {name: -stream for name, stream in clips.streams.items()},
            clips.present,
            clips.quality,
            clips.start,
            clips.label,
            clips.keys,
        ),
        "rgb",
    )
    model = classifier("static")
    cell = judge_cell("static", 1, 2, model, clips, clips, {1.0: swapped}, top_k_accuracy)
    assert cell.validation == 1
    assert cell.subsets["rgb"] == 1
    assert 0.2 < cell.subsets["audio"] < 0.8
    assert cell.noise == {"rgb": {"0": 1.0, "1": 0.0}, "audio": {"0": 1.0, "1": 1.0}}
    assert cell.weights == pytest.approx({"rgb": 0.5, "audio": 0.5})
    assert cell.entropy == pytest.approx(1)
    assert cell.spread == pytest.approx(0, abs=1e-6)
    assert cell.shuffled == 1
    assert cell.mean_gate == 1
    assert (cell.row, cell.fold, cell.seed) == ("static", 1, 2)
    assert cell.labels == clips.label.tolist()


def test_weights_are_shuffled_among_rows_with_the_same_modalities(
    clips: StoredClips, classifier: Callable[..., Classifier]
) -> None:
    model, clips = gated(clips, classifier)
    plain, weights = score_stored(model, clips)
    with shuffled_weights(model.backbone.fusion) as moved:
        shuffled, reported = score_stored(model, clips)
    assert moved
    first = np.stack([clips.streams[name][:, 0, 0, 0].double().numpy() for name in NAMES], axis=1)
    for probabilities, given in ((plain, weights), (shuffled, reported)):
        # The head doubles its 9 to a difference of 18 between the classes.
        expected = 1 / (1 + np.exp(-18 * (given * first).sum(axis=1)))
        np.testing.assert_allclose(probabilities[:, 1], expected, atol=1e-5)
    for rows in (slice(0, 20), slice(20, 40)):
        # Half of the clips have a gate of almost 1 on rgb, the other half of almost 0.
        np.testing.assert_allclose(np.sort(reported[rows], axis=0), np.sort(weights[rows], axis=0), rtol=1e-6)
        assert (np.abs(reported[rows, 0] - weights[rows, 0]) > 0.9).any()
    # A row with one modality keeps weight zero for the other.
    assert (reported[20:, 1] == 0).all()
    np.testing.assert_allclose(score_stored(model, clips)[0], plain)


@pytest.mark.parametrize(
    ("fusion", "decision", "moves"),
    [
        ("concat", None, False),
        ("gated_concat", None, True),
        ("vector", None, True),
        ("gmu", None, True),
        ("static", "energy", True),
        ("static", "opinion", True),
        ("static", "entropy", True),
        ("static", "evidential", False),
    ],
)
def test_only_mechanisms_that_join_by_weights_have_weights_to_shuffle(
    fusion: str, decision: str | None, moves: bool, clips: StoredClips, classifier: Callable[..., Classifier]
) -> None:
    cell = judge_cell("row", 0, 0, classifier(fusion, decision), clips, clips, {}, top_k_accuracy)
    assert (cell.shuffled is not None) == moves
    assert (cell.mean_gate is not None) == moves


def gated(clips: StoredClips, build: Callable[..., Classifier]) -> tuple[Classifier, StoredClips]:
    """A gate that reads the class from rgb, and clips of one view of which the last 20 have no audio."""
    model = build("sigmoid")
    with torch.no_grad():
        model.backbone.fusion.weight[0, 0] = 9.0  # pyright: ignore
    clips = clips.without("audio")
    clips.present["audio"][:20] = True
    return model, replace(
        clips,
        streams={name: stream[:, :1] for name, stream in clips.streams.items()},
        present={name: mask[:, :1] for name, mask in clips.present.items()},
        quality=clips.quality[:, :1],
        start=clips.start[:, :1],
    )


def test_the_mean_gate_is_the_mean_over_all_clips_with_the_same_modalities(
    clips: StoredClips, classifier: Callable[..., Classifier]
) -> None:
    model, clips = gated(clips, classifier)
    _, weights = score_stored(model, clips)
    expected = np.concatenate([np.tile(weights[rows].mean(axis=0), (20, 1)) for rows in (slice(20), slice(20, 40))])
    assert np.abs(expected[0, 0] - weights[:, 0]).min() > 0.4
    with recorded_weights(model.backbone.fusion) as recorded:
        score_stored(model, clips, batch_size=7)
    # The batches of a second pass may be others.
    with mean_weights(model.backbone.fusion, recorded):
        probabilities, given = score_stored(model, clips, batch_size=16)
    np.testing.assert_allclose(given, expected, atol=1e-6)
    first = np.stack([clips.streams[name][:, 0, 0, 0].double().numpy() for name in NAMES], axis=1)
    np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-18 * (expected * first).sum(axis=1))), atol=1e-5)
    np.testing.assert_allclose(score_stored(model, clips)[1], weights)


def test_the_spread_compares_clips_with_the_same_modalities(
    clips: StoredClips, classifier: Callable[..., Classifier]
) -> None:
    model, some = gated(clips, classifier)
    cell = judge_cell("sigmoid", 0, 0, model, some, some, {}, top_k_accuracy)
    _, weights = score_stored(model, some)
    rgb = np.sqrt(np.mean([weights[:20, 0].var(), weights[20:, 0].var()]))
    assert cell.spread == pytest.approx((rgb + weights[:20, 1].std()) / 2)
    # A static average gives rgb more where audio is absent, and is still static.
    cell = judge_cell("static", 0, 0, classifier("static"), some, some, {}, top_k_accuracy)
    assert cell.spread == pytest.approx(0, abs=1e-6)
    assert cell.weights["rgb"] == pytest.approx(0.75)


def gates_of(fusion: Any, values: Tensor, there: Tensor) -> Tensor:
    """Gates of one segment with features `values` (M, D) and presence `there` (M,): (M,), or (M, D) by channel."""
    if isinstance(fusion, GatedConcat):
        scores = fusion.network(torch.cat([*values, there])).exp() * there
        return scores / scores.sum()
    if isinstance(fusion, VectorGate):
        return torch.stack(
            [torch.sigmoid(fusion.weight[m] @ values[m] + fusion.bias[m]) * there[m] for m in range(2)]
        )
    return torch.stack([torch.sigmoid(fusion.weight[m] @ values.flatten()) * there[m] for m in range(2)])


def joined(fusion: Any, values: Tensor, gates: Tensor, there: Tensor) -> Tensor:
    """The fused vector of one segment by these gates."""
    if isinstance(fusion, GatedConcat):
        return fusion.join(torch.cat([*(there.sum() * gates[m] * values[m] for m in range(2)), there]))
    if isinstance(fusion, VectorGate):
        return gates[0] * values[0] + gates[1] * values[1]
    return sum(gates[m] * torch.tanh(fusion.content[m] @ values[m]) for m in range(2))  # pyright: ignore


@pytest.mark.parametrize("fusion", ["vector", "gmu", "gated_concat"])
@torch.no_grad()
def test_gates_per_channel_and_of_concatenation_are_shuffled_and_averaged_whole(
    fusion: str, classifier: Callable[..., Classifier]
) -> None:
    """Against a loop over clips; the last 20 of 40 have no audio."""
    model = classifier(fusion)
    gate: Any = model.backbone.fusion
    generator = torch.Generator().manual_seed(3)
    for parameter in gate.gate_parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    features = torch.randn(CLIPS, 2, 4, generator=generator)
    there = torch.ones(CLIPS, 2)
    there[20:, 1] = 0
    clips = StoredClips(
        {name: features[:, m, None, None].repeat(1, 1, 2, 1) for m, name in enumerate(NAMES)},
        {name: there[:, m, None].bool() for m, name in enumerate(NAMES)},
        *(torch.zeros(CLIPS, 1, 2, 2), torch.zeros(CLIPS, 1), torch.arange(CLIPS) % 2),
        [f"clip-{number}" for number in range(CLIPS)],
    )
    # An absent modality has its learned vector, which starts at zero.
    features = features * there[..., None]
    gates = torch.stack([gates_of(gate, features[row], there[row]) for row in range(CLIPS)])

    def chance(changed: Tensor) -> NDArray[np.float64]:
        first = torch.stack([joined(gate, features[row], changed[row], there[row])[0] for row in range(CLIPS)])
        return torch.sigmoid(18 * first).double().numpy()

    plain, weights = score_stored(model, clips)
    np.testing.assert_allclose(plain[:, 1], chance(gates), atol=1e-4)
    np.testing.assert_allclose(weights, gates.mean(-1) if gates.dim() == 3 else gates, atol=1e-5)
    with shuffled_weights(gate) as moved:
        shuffled, reported = score_stored(model, clips)
    assert moved
    taken = np.abs(reported[:, None] - weights[None]).sum(axis=-1).argmin(axis=1)
    # Each clip takes all gates of one clip with the same modalities, and no clip gives twice.
    assert sorted(taken[:20]) == list(range(20))
    assert (taken[:20] != np.arange(20)).sum() > 10
    assert (taken[20:] >= 20).all()
    np.testing.assert_allclose(shuffled[:, 1], chance(gates[torch.from_numpy(taken)]), atol=1e-4)
    with recorded_weights(gate) as recorded:
        score_stored(model, clips, batch_size=7)
    with mean_weights(gate, recorded):
        averaged, _ = score_stored(model, clips, batch_size=16)
    means = torch.cat([gates[rows].mean(dim=0).expand(20, *gates.shape[1:]) for rows in (slice(20), slice(20, 40))])
    np.testing.assert_allclose(averaged[:, 1], chance(means), atol=1e-4)
    assert np.abs(averaged - plain).max() > 0.05
    np.testing.assert_allclose(score_stored(model, clips)[0], plain)
