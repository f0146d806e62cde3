"""Fusion by concatenation, plain and gated, against its equation, row by row."""

import torch
from modalgate.fusion.mechanisms.concat import ConcatFusion, GatedConcat
from torch import nn

MODALITIES = ("rgb", "audio")


def test_concat_equals_the_network_on_each_joined_row() -> None:
    torch.manual_seed(0)
    fusion = ConcatFusion(MODALITIES, 3, hidden=7).double().eval()
    nn.init.normal_(fusion.missing)
    features = {name: torch.randn(4, 3, dtype=torch.float64) for name in MODALITIES}
    present = {"rgb": torch.tensor([True, True, False, False]), "audio": torch.tensor([True, False, True, False])}
    fused = fusion(features, present)
    for row in range(4):
        entries = [features[n][row] if present[n][row] else fusion.missing[m] for m, n in enumerate(MODALITIES)]
        bits = torch.tensor([float(present[name][row]) for name in MODALITIES]).double()
        expected = fusion.network(torch.cat([*entries, bits])[None])[0]
        torch.testing.assert_close(fused.embedding[row], expected if bits.any() else fusion.nothing)
    shares = torch.tensor([[0.5, 0.5], [1, 0], [0, 1], [0, 0]]).double()
    torch.testing.assert_close(fused.weights, shares)
    assert float(fused.aux_loss) == 0


def test_concat_never_reads_an_absent_modality_and_learns_its_vector() -> None:
    torch.manual_seed(0)
    fusion = ConcatFusion(MODALITIES, 3)
    rgb = torch.randn(4, 3)
    audio = torch.full((4, 3), torch.nan, requires_grad=True)
    present = {"rgb": torch.ones(4, dtype=torch.bool), "audio": torch.zeros(4, dtype=torch.bool)}
    embedding = fusion({"rgb": rgb, "audio": audio}, present).embedding
    embedding.square().sum().backward()
    assert torch.isfinite(embedding).all()
    assert audio.grad is not None
    assert (audio.grad == 0).all()
    assert fusion.missing.grad is not None
    assert (fusion.missing.grad[0] == 0).all()
    assert (fusion.missing.grad[1] != 0).any()


def test_gated_concat_scales_each_modality_by_its_weight_times_the_number_present() -> None:
    torch.manual_seed(0)
    fusion = GatedConcat(MODALITIES, 3, hidden=7).double().eval()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter)
    features = {name: torch.randn(4, 3, dtype=torch.float64) for name in MODALITIES}
    present = {"rgb": torch.tensor([True, True, False, False]), "audio": torch.tensor([True, False, True, False])}
    fused = fusion(features, present)
    for row in range(4):
        there = torch.tensor([float(present[name][row]) for name in MODALITIES]).double()
        inputs = [features[n][row] if present[n][row] else fusion.missing[m] for m, n in enumerate(MODALITIES)]
        logits = fusion.network(torch.cat([*inputs, there])[None])[0]
        weights = there * logits.exp() / (there * logits.exp()).sum().clamp_min(1e-300)
        parts = [there.sum() * weight * value for weight, value in zip(weights, inputs, strict=True)]
        expected = fusion.join(torch.cat([*parts, there])[None])[0]
        torch.testing.assert_close(fused.weights[row], weights)
        torch.testing.assert_close(fused.embedding[row], expected if there.any() else fusion.nothing)


def test_gated_concat_starts_as_concatenation() -> None:
    torch.manual_seed(0)
    fusion = GatedConcat(MODALITIES, 3)
    features = {name: torch.randn(5, 3) for name in MODALITIES}
    present = {name: torch.ones(5, dtype=torch.bool) for name in MODALITIES}
    plain = fusion.join(torch.cat([*features.values(), torch.ones(5, 2)], dim=1))
    torch.testing.assert_close(fusion(features, present).embedding, plain)
