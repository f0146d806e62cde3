"""Encoders per modality, gates, the multimodal backbone and the exported bundle."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle import load_bundle as load_bundle
    from .bundle import load_encoder as load_encoder


def __getattr__(name: str) -> Any:
    # Configs import this package for its plain specs; torch comes only with the first model.
    if name in ("load_bundle", "load_encoder"):
        from . import bundle

        return getattr(bundle, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
