"""Pretrain with a gate of your own: python examples/own_gate.py SHARDS OUT.

SHARDS: a folder that `modalgate pack` wrote, with two modalities or more. OUT: a new folder for the run.
A config names the gate by its path, `own_gate:NormGate`; the module has to be importable (here: the script's folder).
"""

import sys

import modalgate
import torch
from modalgate.fusion import Fused, Fusion
from torch import Tensor, nn


class NormGate(Fusion):
    """Weights by one learned score of each feature and of its length: `g = softmax(w . h + a |h|)`.

    `arguments` is what a bundle stores to build the gate again.
    """

    def __init__(self, modalities: tuple[str, ...], width: int, start: float = 0.0) -> None:
        super().__init__(modalities, width)
        self.arguments = {"start": start}
        self.direction = nn.Parameter(torch.zeros(width))
        self.length = nn.Parameter(torch.tensor(start))

    def forward(self, features: dict[str, Tensor], present: dict[str, Tensor]) -> Fused:
        mask = torch.stack([present[name] for name in self.modalities], dim=-1)
        values = torch.stack([features[name] for name in self.modalities], dim=-2)
        scores = values @ self.direction + self.length * values.norm(dim=-1)
        # A finite floor: a row with no modality at all has no weights, and no NaN.
        weights = scores.masked_fill(~mask, -1e4).softmax(dim=-1) * mask
        return self.fuse(values, weights, mask)


def main(shards: str, out: str) -> None:
    settings = {
        "out": out,
        "name": "own_gate",
        "model.fusion": "own_gate:NormGate",
        "model.fusion_arguments": {"start": 0.1},
        "train.steps": 4,
        "data.batch_size": 4,
        "data.workers": 0,
        "wandb": "disabled",
    }
    done = modalgate.pretrain(shards, settings=settings)
    encoder = modalgate.load_encoder(done.encoders[0], allow=("own_gate",))
    for name in encoder.modalities:
        print(f"mean gate weight of {name}: {done.figures[f'gate/{name}']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
