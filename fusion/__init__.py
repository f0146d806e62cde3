"""Encoders per modality, gates, the multimodal backbone and the exported bundle."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import load_bundle as load_bundle
    from .embedding import load_encoder as load_encoder

_DOORS = {"load_bundle": "bundle", "load_encoder": "embedding"}


def __getattr__(name: str) -> Any:
    # Configs import this package for its plain specs; torch comes only with the first model.
    if name in _DOORS:
        return getattr(import_module(f".{_DOORS[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
