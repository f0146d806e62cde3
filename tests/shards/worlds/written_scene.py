"""Reads the scenes that a world stores beside its media."""

import json
from typing import Any

from modalgate.shards.worlds.scene import Scene


def scene_from_json(line: str) -> Scene:
    """The scene in a line of `scenes.jsonl`."""
    content: dict[str, Any] = json.loads(line)
    content |= {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
    return Scene(**content)
