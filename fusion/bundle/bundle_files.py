"""The files of a bundle, found without loading its model."""

from pathlib import Path

from ...shards.errors import RequestError
from .hub import fetch

WEIGHTS, FACTS, CARD = "encoder.safetensors", "encoder.json", "README.md"
# Weights file by facts file: the default names, and those that the hub expects.
LAYOUTS = {FACTS: WEIGHTS, "config.json": "model.safetensors"}


def local_bundle(place: Path | str) -> Path:
    """The folder of a bundle: `place` itself, or the cached download of `hf://owner/name[@revision]`."""
    return fetch(place, [CARD, *LAYOUTS, *LAYOUTS.values()])


def facts_path(folder: Path) -> Path:
    """The facts file of the bundle in `folder`. Raises `RequestError` if `folder` is not a bundle."""
    for name in LAYOUTS:
        if (folder / name).is_file():
            return folder / name
    lacks = f"it has no {FACTS}" if folder.is_dir() else "the folder does not exist"
    raise RequestError(f"'{folder}' is not a bundle ({lacks}): give a folder that `modalgate export` wrote")
