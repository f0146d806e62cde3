"""Pretrain with your own gate: python examples/own_gate.py SHARDS OUT.

SHARDS: a folder that `modalgate pack` wrote, with at least two modalities. OUT: a new folder for the run.
The config names the gate by its class path, `own_gate:NormGate`. The module must be importable; here it is, because
Python adds the folder of the script to its path.
"""

import sys

import modalgate
import torch
from modalgate.fusion import Fused, Fusion
from torch import Tensor, nn


class NormGate(Fusion):
    """Weights from a learned score of each feature and its length: `g = softmax(w . h + a |h|)`.

    A bundle stores `arguments`, and builds the gate from them.
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
        # A finite value instead of -inf, which would give NaN in a row without any modality.
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
