"""MMPareto against a search over all convex combinations, and inside a training step."""

import pytest
import torch
from modalgate.tasks.finetuning.balance.pareto_gradients import ParetoGradients, pareto_factors
from torch import nn


def naive(fused: torch.Tensor, own: torch.Tensor, scale: float) -> torch.Tensor:
    """The vector of smallest norm by a fine search, rescaled."""
    if float(fused @ own) >= 0:
        joined = (fused + own) / 2
    else:
        shares = torch.linspace(0, 1, 100_001, dtype=torch.float64)[:, None]
        every = shares * fused + (1 - shares) * own
        joined = every[every.norm(dim=1).argmin()]
    return scale * joined * (fused + own).norm() / joined.norm()


def test_it_equals_a_search_over_convex_combinations() -> None:
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        fused, own = torch.randn(2, 5, generator=generator, dtype=torch.float64)
        if seed % 2:
            own = own - 1.5 * fused  # in conflict
        one, two = pareto_factors(fused, own, 1.5)
        torch.testing.assert_close(one * fused + two * own, naive(fused, own, 1.5), rtol=1e-3, atol=1e-4)


def test_a_conflict_lowers_both_losses() -> None:
    fused, own = torch.tensor([3.0, 1.0]).double(), torch.tensor([-1.0, 1.0]).double()
    assert float(fused @ own) < 0
    # The plain sum would raise the second loss.
    assert float((fused + own) @ own) <= 0
    one, two = pareto_factors(fused, own)
    joined = one * fused + two * own
    assert float(joined @ fused) > 0
    assert float(joined @ own) > 0


@pytest.mark.parametrize("loss_scale", [1.0, 0.25, 1024.0])
def test_a_training_step_gets_the_joined_gradient(loss_scale: float) -> None:
    torch.manual_seed(0)
    encoders = nn.ModuleDict({name: nn.Linear(4, 3).double() for name in ("rgb", "audio")})
    heads = nn.ModuleDict({name: nn.Linear(3, 2).double() for name in ("rgb", "audio")})
    joint = nn.Linear(6, 2).double()
    data = {name: torch.randn(8, 4).double() for name in encoders}
    label = torch.randint(2, (8,))
    streams = {name: list(encoder.parameters()) for name, encoder in encoders.items()}
    pareto = ParetoGradients(streams, 1.5)

    def losses() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        features = {name: encoders[name](rows) for name, rows in data.items()}
        fused = nn.functional.cross_entropy(joint(torch.cat(list(features.values()), dim=1)), label)
        own = {name: nn.functional.cross_entropy(heads[name](rows), label) for name, rows in features.items()}
        return fused, own

    fused, own = losses()
    expected, plain = {}, {}
    for name, parameters in streams.items():
        first = torch.cat([g.flatten() for g in torch.autograd.grad(fused, parameters, retain_graph=True)])
        second = torch.cat([g.flatten() for g in torch.autograd.grad(own[name], parameters, retain_graph=True)])
        one, two = pareto_factors(first, second)
        expected[name], plain[name] = one * first + two * second, first + second
    pareto.measure(fused, own)
    (loss_scale * (fused + sum(own.values()))).backward()
    for name, parameters in streams.items():
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]) / loss_scale
        torch.testing.assert_close(found, expected[name], rtol=1e-6, atol=1e-9)
    # Heads and the joint layer get the gradient of the plain sum.
    grads = torch.autograd.grad(sum(losses()[1].values()), list(heads.parameters()))  # pyright: ignore
    for parameter, gradient in zip(heads.parameters(), grads, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad / loss_scale, gradient)
    # Without a new measurement the next step is the plain sum.
    for parameter in [p for parameters in streams.values() for p in parameters]:
        parameter.grad = None
    fused, own = losses()
    (fused + sum(own.values())).backward()
    for name, parameters in streams.items():
        found = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        torch.testing.assert_close(found, plain[name])
