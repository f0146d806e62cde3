"""Encoders per modality, fusion mechanisms, the multimodal backbone and the exported bundle."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
