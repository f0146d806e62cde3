"""The files of an exported bundle, and where they lie: what can be known of one without loading its model."""

from pathlib import Path

from ...shards.errors import RequestError
from .hub import fetch

WEIGHTS, FACTS, CARD = "encoder.safetensors", "encoder.json", "README.md"
# The weights' file by the facts': ours, and what the hub counts, shows and measures a model by.
LAYOUTS = {FACTS: WEIGHTS, "config.json": "model.safetensors"}


def local_bundle(place: Path | str) -> Path:
    """The folder `place`, or, of `hf://owner/name[@revision]`, that of its files in the hub's cache."""
    return fetch(place, [CARD, *LAYOUTS, *LAYOUTS.values()])


def facts_path(folder: Path) -> Path:
    """The file with the facts of the bundle in `folder`; `RequestError` where there is no bundle."""
    for name in LAYOUTS:
        if (folder / name).is_file():
            return folder / name
    lacks = f"it has no {FACTS}" if folder.is_dir() else "there is no such folder"
    raise RequestError(f"'{folder}' is no bundle ({lacks}): give a folder that `modalgate export` wrote")
