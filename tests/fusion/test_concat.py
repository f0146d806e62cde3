"""Fusion by concatenation against its equation, row by row."""

import torch
from modalgate.fusion.concat import ConcatFusion
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
