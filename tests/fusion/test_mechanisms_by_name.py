"""Fusion mechanisms by name."""

import pytest
import torch
from modalgate.fusion.mechanisms_by_name import FUSIONS, build_fusion
from modalgate.shards.errors import RequestError

MODALITIES = ("rgb", "flow", "audio")


@pytest.mark.parametrize("name", FUSIONS)
def test_every_fusion_keeps_the_contract(name: str) -> None:
    torch.manual_seed(0)
    fusion = build_fusion(name, MODALITIES, 6, {})
    assert type(fusion) is FUSIONS[name]
    features = {modality: torch.randn(2, 4, 6, requires_grad=True) for modality in MODALITIES}
    rows = torch.arange(8).view(2, 4)
    present = {modality: (rows >> number) % 2 == 1 for number, modality in enumerate(MODALITIES)}
    fused = fusion(features, present)
    assert fused.embedding.shape == (2, 4, 6)
    assert fused.weights.shape == (2, 4, 3)
    assert fused.aux_loss.shape == ()
    assert (fused.weights[~torch.stack(list(present.values()), dim=-1)] == 0).all()
    (fused.embedding.sum() + fused.aux_loss).backward()
    for parameter in fusion.parameters():
        assert parameter.grad is not None, "a rank without it would wait for ever"
        assert torch.isfinite(parameter.grad).all()


def test_arguments_reach_the_mechanism() -> None:
    assert build_fusion("softmax", MODALITIES, 6, {"temperature": 0.5}).temperature == 0.5


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RequestError, match="unknown fusion 'softmx': did you mean 'softmax'"):
        build_fusion("softmx", MODALITIES, 6, {})


def test_an_unknown_argument_is_named() -> None:
    with pytest.raises(RequestError, match=r"fusion sigmoid 'temperature'"):
        build_fusion("sigmoid", MODALITIES, 6, {"temperature": 1.0})
