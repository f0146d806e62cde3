"""Pretrain with your own training loop: python examples/own_training_loop.py SHARDS OUT.

SHARDS: a folder that `modalgate pack` wrote, with RGB and sound. OUT: a new folder for the bundle of the encoder.
"""

import sys
from pathlib import Path

import torch
from modalgate import PretextObjective, load_encoder
from modalgate.fusion import Backbone, BackboneSpec, Bundle, EncoderSpec, save_bundle
from modalgate.shards import AugmentConfig, ClipRequest, ClipSpec, ClipStream, load_index

EPOCHS = 2


def main(shards: str, out: str) -> None:
    index = load_index(shards)
    # Two windows per clip, each half a second long, with four frames of 32 x 32 pixels.
    request = ClipRequest(("rgb", "audio"), segments=2, seconds=0.5, frames=4, size=32)
    clip = ClipSpec.of(index, request)
    stream = ClipStream(index, request, batch_size=4)

    torch.manual_seed(0)
    encoder = EncoderSpec("timm/test_convnext", pooling="mean")
    spec = BackboneSpec(width=32, fusion="softmax", encoders={"rgb": encoder, "audio": encoder})
    backbone = Backbone(request.modalities, spec, clip=clip)
    tasks = {"cross_modal": (1.0, {"temperature": 0.1}), "clip_order": (0.5, {})}
    objective = PretextObjective(backbone, clip, request.segments, tasks, AugmentConfig()).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=1e-3)

    for epoch in range(EPOCHS):
        for batch in stream:
            outputs = objective(batch)
            # Losses end in "/loss". `weights` has the weights of the task losses; other losses have weight 1.
            losses = {name: value for name, value in outputs.items() if name.endswith("/loss")}
            loss = torch.stack([objective.weights.get(name, 1.0) * value for name, value in losses.items()]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        shown = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
        print(f"epoch {epoch + 1} of {EPOCHS}, {len(stream)} batches each: {shown}")

    save_bundle(Bundle(backbone, clip, request.segments), Path(out))
    print(f"{out}: features of width {load_encoder(out).width}")


if __name__ == "__main__":
    main(*sys.argv[1:])
