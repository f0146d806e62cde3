"""Properties of every mechanism in the registry, independent of its equation."""

from itertools import combinations

import pytest
import torch
from modalgate.fusion.mechanisms.gates import Fused, unused_tensors
from modalgate.fusion.mechanisms_by_name import FUSIONS, build_fusion, fusions_at
from modalgate.shards.errors import RequestError
from torch import Tensor, nn

NAMES = ("rgb", "flow", "audio")
# Small, and all different: a parameter's axis is known by its size alone.
WIDTH, HIDDEN = 4, 7
SUBSETS = [frozenset(s) for n in range(len(NAMES) + 1) for s in combinations(NAMES, n)]
ARGUMENTS = {
    "softmax": {"hidden": HIDDEN},
    "concat": {"hidden": HIDDEN},
    "gated_concat": {"hidden": HIDDEN},
    "topk": {"hidden": HIDDEN, "free": 2},
    "film": {"hidden": HIDDEN},
    "tensor": {"inner": 2},
    "bilinear": {"sketch": 16},
}
# The sum of a row's weights with all present, where the equation says one.
SHARES = {"static", "concat", "softmax", "topk", "film", "cross", "bottleneck", "tensor", "lowrank", "bilinear"} | {
    "gated_concat",
    "mean",
    "weighted_mean",
    "entropy",
}

every_mechanism = pytest.mark.parametrize("name", FUSIONS)


def build(name: str, modalities: tuple[str, ...] = NAMES, seed: int = 1) -> nn.Module:
    """In double precision, with parameters away from their neutral start."""
    torch.manual_seed(seed)
    fusion = build_fusion(name, modalities, WIDTH, ARGUMENTS.get(name, {}))
    generator = torch.Generator().manual_seed(seed)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return fusion.double().eval()


def rows_of_every_subset(tokens: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    shape = (len(SUBSETS), tokens, WIDTH) if tokens else (len(SUBSETS), WIDTH)
    features = {
        name: torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for name in NAMES
    }
    return features, {name: torch.tensor([name in subset for subset in SUBSETS]) for name in NAMES}


def scalar(fused: Fused) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return (
        sum(
            (value * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)).sum()
            for value in (fused.embedding, fused.weights)
        )
        + fused.aux_loss
    )  # pyright: ignore[reportReturnType]


@every_mechanism
def test_absent_modalities_have_no_weight_no_gradient_and_no_influence(name: str) -> None:
    fusion = build(name)
    features, present = rows_of_every_subset()
    fused = fusion(features, present)
    assert fused.embedding.shape == (len(SUBSETS), WIDTH)
    assert fused.weights.shape == (len(SUBSETS), len(NAMES))
    gradients = torch.autograd.grad(scalar(fused), list(features.values()))
    strange = {key: torch.where(present[key][:, None], value, torch.nan) for key, value in features.items()}
    other = fusion(strange, present)
    assert torch.equal(other.embedding, fused.embedding)
    for number, (key, gradient) in enumerate(zip(NAMES, gradients, strict=True)):
        assert gradient.isfinite().all()
        assert (gradient[~present[key]] == 0).all()
        assert (gradient[present[key]] != 0).any()
        assert (fused.weights[~present[key], number] == 0).all()


@every_mechanism
def test_weights_sum_as_the_equation_says(name: str) -> None:
    fused = build(name)(*rows_of_every_subset())
    counts = torch.tensor([len(subset) for subset in SUBSETS], dtype=torch.float64)
    sums = fused.weights.sum(dim=-1)
    if name in SHARES:
        torch.testing.assert_close(sums, (counts > 0).double())
    elif name == "product":
        torch.testing.assert_close(sums, counts)
    elif name == "mmtm":
        assert (sums <= 2).all()
        assert (fused.weights >= 0).all()
    elif name != "energy":
        assert (sums <= counts * {"opinion": 2, "reliability": 50}.get(name, 1)).all()
        assert (fused.weights >= 0).all()


@every_mechanism
def test_row_without_modalities_gives_the_learned_vector_and_its_gradient(name: str) -> None:
    fusion = build(name)
    features, present = rows_of_every_subset()
    fused = fusion(features, present)
    torch.testing.assert_close(fused.embedding[0], fusion.nothing)
    assert (fused.weights[0] == 0).all()
    found = torch.autograd.grad(fused.embedding[0].sum(), list(fusion.parameters()), allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in found)


@every_mechanism
def test_every_parameter_gets_a_gradient(name: str) -> None:
    fusion = build(name).train()
    features, present = rows_of_every_subset()
    gradients = torch.autograd.grad(scalar(fusion(features, present)), list(fusion.parameters()))
    for (key, _), gradient in zip(fusion.named_parameters(), gradients, strict=True):
        assert (gradient != 0).any(), key


@every_mechanism
def test_an_older_state_with_vectors_of_absent_modalities_loads(name: str) -> None:
    fusion = build(name)
    holder = nn.ModuleDict({"fusion": fusion})
    older = {"fusion.missing": torch.ones(len(NAMES), WIDTH)} | build(name, seed=2).state_dict(prefix="fusion.")
    assert unused_tensors(holder) == ([] if hasattr(fusion, "missing") else ["fusion.missing"])
    holder.load_state_dict(older)
    assert all(torch.equal(value, older[f"fusion.{key}"]) for key, value in fusion.state_dict().items())
    with pytest.raises(RuntimeError, match="strange"):
        holder.load_state_dict(older | {"fusion.strange": torch.ones(1)})


@every_mechanism
def test_rows_do_not_affect_each_other(name: str) -> None:
    fusion = build(name)
    features, present = rows_of_every_subset()
    together = fusion(features, present)
    for row in range(len(SUBSETS)):
        alone = fusion({k: v[row : row + 1] for k, v in features.items()}, {k: v[[row]] for k, v in present.items()})
        torch.testing.assert_close(alone.embedding[0], together.embedding[row])
        torch.testing.assert_close(alone.weights[0], together.weights[row])


@every_mechanism
@pytest.mark.parametrize("training", [False, True])
def test_duplicating_a_batch_changes_nothing(name: str, training: bool) -> None:
    fusion = build(name).train(training)
    features, present = rows_of_every_subset()
    if training and name == "topk":
        # Its noise differs from row to row: without it the rest must be the same.
        fusion.noise.data.fill_(-1e3)
        features = {key: value.abs() for key, value in features.items()}
    once = fusion(features, present)
    twice = fusion(
        {k: torch.cat([v, v]) for k, v in features.items()}, {k: torch.cat([v, v]) for k, v in present.items()}
    )
    torch.testing.assert_close(twice.embedding, torch.cat([once.embedding] * 2))
    torch.testing.assert_close(twice.weights, torch.cat([once.weights] * 2))
    torch.testing.assert_close(twice.aux_loss, once.aux_loss)


def permuted(state: dict[str, Tensor], order: list[int], name: str) -> dict[str, Tensor]:
    """The state of a mechanism with its modalities in another order."""
    count = len(order)
    out = {}
    for key, value in state.items():
        head, *rest = key.split(".")
        if name == "topk" and head == "own":
            key = ".".join([head, str(order.index(int(rest[0]))), *rest[1:]])
        if name == "bottleneck" and head == "layers":
            key = ".".join([head, rest[0], str(order.index(int(rest[1]))), *rest[2:]])
        for axis, size in enumerate(value.shape):
            places = None
            if size == count and not (name == "tensor" and axis):
                places = torch.tensor(order)
            elif size == count * WIDTH and name in ("gmu", "mmtm") and (name == "gmu" or axis == 1):
                places = torch.arange(size).view(count, WIDTH)[order].flatten()
            elif name == "opinion" and size == 4 * count:
                blocks = torch.arange(3 * count).view(count, 3)[order].flatten()
                places = torch.cat([blocks, 3 * count + torch.tensor(order)])
            elif name == "reliability" and key == "first" and axis == 1:
                # Seven inputs per modality, then the presence of each.
                blocks = torch.arange(7 * count).view(count, 7)[order].flatten()
                places = torch.cat([blocks, 7 * count + torch.tensor(order)])
            elif size == count * (WIDTH + 1):
                blocks = torch.arange(count * WIDTH).view(count, WIDTH)[order].flatten()
                places = torch.cat([blocks, count * WIDTH + torch.tensor(order)])
            elif name == "topk" and head in ("gate", "noise") and size == count + 2:
                places = torch.tensor([*order, count, count + 1])
            elif name == "tensor" and key == "head.weight" and axis == 1:
                places = torch.arange(size).view([3] * count).permute(order).flatten()
            if places is not None:
                value = value.index_select(axis, places)
        out[key] = value
    return out


@every_mechanism
def test_permuting_modalities_permutes_weights(name: str) -> None:
    order = [2, 0, 1]
    fusion, other = build(name), build(name, tuple(NAMES[number] for number in order))
    other.load_state_dict(permuted(fusion.state_dict(), order, name))
    features, present = rows_of_every_subset()
    here, there = fusion(features, present), other(features, present)
    torch.testing.assert_close(there.weights, here.weights[:, order])
    torch.testing.assert_close(there.embedding, here.embedding)


@every_mechanism
def test_single_modality_and_any_leading_shape(name: str) -> None:
    fusion = build(name, ("rgb",))
    feature = torch.randn(2, 3, WIDTH, dtype=torch.float64)
    fused = fusion({"rgb": feature}, {"rgb": torch.ones(2, 3, dtype=torch.bool)})
    assert fused.embedding.shape == (2, 3, WIDTH)
    assert fused.weights.shape == (2, 3, 1)
    assert fused.embedding.isfinite().all()


@every_mechanism
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(name: str, kind: torch.dtype) -> None:
    fusion = build(name)
    features, present = rows_of_every_subset()
    exact = fusion(features, present)
    fusion.to(kind)
    half = fusion({key: value.to(kind) for key, value in features.items()}, present)
    assert half.embedding.dtype == kind
    # Three digits of float16, two of bfloat16, through some layers of size one.
    distance = (half.embedding.double() - exact.embedding).abs().max() / exact.embedding.abs().max()
    assert distance < (0.02 if kind == torch.float16 else 0.15)


# Tracing takes seconds. One mechanism of each level is traced in every run.
TRACED = ("softmax", "gated_concat", "reliability")


@pytest.mark.parametrize(
    "name", [name if name in TRACED else pytest.param(name, marks=pytest.mark.slow) for name in FUSIONS]
)
def test_captured_as_one_graph(name: str) -> None:
    """By `torch.export` with a free batch size, and by `torch.compile` without a break in the graph."""
    # Dynamo counts how often the one class below is captured, over all mechanisms.
    torch.compiler.reset()
    fusion = build(name)
    features, present = rows_of_every_subset()
    features = {key: value.detach() for key, value in features.items()}
    expected = fusion(features, present)

    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fusion = fusion

        def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            fused = self.fusion(features, present)
            return fused.embedding, fused.weights

    free = {key: {0: torch.export.Dim("rows")} for key in NAMES}
    exported = torch.export.export(Plain(), (features, present), dynamic_shapes=(free, free)).module()
    compiled = torch.compile(Plain(), backend="eager", fullgraph=True)
    for run in (exported, compiled):
        embedding, weights = run({k: v[:5] for k, v in features.items()}, {k: v[:5] for k, v in present.items()})
        torch.testing.assert_close(embedding, expected.embedding[:5])
        torch.testing.assert_close(weights, expected.weights[:5])


@pytest.mark.parametrize("name", fusions_at("token"))
def test_token_sequences_of_different_lengths(name: str) -> None:
    fusion = build(name)
    features, present = rows_of_every_subset(tokens=3)
    features["audio"] = features["audio"][:, :2]
    fused = fusion(features, present)
    assert fused.embedding.shape == (len(SUBSETS), WIDTH)
    gradients = torch.autograd.grad(scalar(fused), list(features.values()))
    for key, gradient in zip(NAMES, gradients, strict=True):
        assert gradient.isfinite().all()
        assert (gradient[~present[key]] == 0).all()


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "concat", "gated_concat"])
def test_quality_affects_only_the_gate_and_only_with_several_modalities(name: str) -> None:
    torch.manual_seed(0)
    fusion = build_fusion(name, NAMES, WIDTH, {"quality": 2}).double().eval()
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.5)
    features, present = rows_of_every_subset()
    quality = torch.randn(len(SUBSETS), len(NAMES), 2, dtype=torch.float64)
    told, untold = fusion(features, present, quality), fusion(features, present)
    assert not torch.equal(told.embedding[1:], untold.embedding[1:])
    mask = torch.stack([present[key] for key in NAMES], dim=-1)
    elsewhere = fusion(features, present, torch.where(mask[..., None], quality, torch.full_like(quality, torch.nan)))
    assert torch.equal(elsewhere.embedding, told.embedding)
    with pytest.raises(ValueError, match="quality has shape"):
        fusion(features, present, quality[..., :1])


def test_scaled_softmax_can_lower_all_weights() -> None:
    fusion = build_fusion("softmax", NAMES, WIDTH, {"scale": True}).double()
    features, present = rows_of_every_subset()
    torch.testing.assert_close(fusion(features, present).weights[-1].sum(), torch.ones((), dtype=torch.float64))
    fusion.network[-1].bias.data[-1] = -50
    assert fusion(features, present).weights.sum() < 1e-12


def test_invalid_arguments_are_rejected() -> None:
    with pytest.raises(RequestError, match="inner=8 has 43046721 products"):
        build_fusion("tensor", tuple("abcdefgh"), WIDTH, {"inner": 8})
    with pytest.raises(RequestError, match=r"fusion 'product' does not accept the arguments .*positive frequencies"):
        build_fusion("product", NAMES, WIDTH, {"prior": [1.0, 2.0]})
