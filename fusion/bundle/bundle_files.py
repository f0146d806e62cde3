"""The files of a bundle, read without loading its model."""

from pathlib import Path

from ...shards.errors import RequestError
from .hub import fetch

WEIGHTS, FACTS, CARD = "encoder.safetensors", "encoder.json", "README.md"
# File of weights by file of facts: ours, and the names that the hub expects.
LAYOUTS = {FACTS: WEIGHTS, "config.json": "model.safetensors"}


def local_bundle(place: Path | str) -> Path:
    """A bundle's folder: `place` itself, or the folder of `hf://owner/name[@revision]` in the hub's cache."""
    return fetch(place, [CARD, *LAYOUTS, *LAYOUTS.values()])


def facts_path(folder: Path) -> Path:
    """The file of facts of the bundle in `folder`; `RequestError` if `folder` is not a bundle."""
    for name in LAYOUTS:
        if (folder / name).is_file():
            return folder / name
    lacks = f"it has no {FACTS}" if folder.is_dir() else "there is no such folder"
    raise RequestError(f"'{folder}' is not a bundle ({lacks}): give a folder that `modalgate export` wrote")
