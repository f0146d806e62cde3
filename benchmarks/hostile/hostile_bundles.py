"""Hostile bundles: resealed facts that name huge models, other code, files and addresses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalgate.fusion.bundle.bundle_files import CARD, FACTS, WEIGHTS
from modalgate.fusion.bundle.integrity import seal


def forge(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the facts of a bundle, and seals them as if they had been exported so."""
    facts = json.loads((folder / FACTS).read_text())
    change(facts)
    (folder / FACTS).write_text(json.dumps(seal(facts, folder, (WEIGHTS, CARD))))


def rgb(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: forge(folder, lambda facts: facts["backbone"]["encoders"]["rgb"].update(fields))


def facts(key: str, **fields: Any) -> Callable[[Path], None]:
    return lambda folder: forge(folder, lambda held: held[key].update(fields))


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)
        if name.endswith(".safetensors"):
            forge(folder, lambda held: None)

    return change


BUNDLES: dict[str, Callable[[Path], None]] = {
    "a network of 4 trillion weights": rgb(arguments={"depths": [1, 1, 1, 1], "dims": [2**20] * 4}),
    "a million layers": rgb(arguments={"depths": [2**20, 1, 1, 1], "dims": [4, 4, 8, 8]}),
    "a network from an address": rgb(
        arguments={"features_only": True, "pretrained_cfg": {"url": "http://127.0.0.1"}}
    ),
    "a network of the hub": rgb(model="timm/hf-hub:owner/name"),
    "a class of another package": rgb(model="antigravity:Class"),
    "a billion pictures per window": facts("clip", frames=10**9),
    "a step of nothing": facts("application", hop=1e-12),
    "numbers that are not finite": facts("clip", fps=float("nan")),
    "facts 200 000 levels deep": write("encoder.json", b"[" * 200_000),
    "a list of tensors of 8 exabytes": write("encoder.safetensors", (2**63).to_bytes(8, "little") + b"{}"),
    "a list of a million tensors": write(
        "encoder.safetensors",
        (lambda head: len(head).to_bytes(8, "little") + head)(
            b"{"
            + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % number for number in range(10**6))
            + b"}"
        ),
    ),
}
