"""modalgate: self-supervised multimodal pretraining on unlabelled video, with gated fusion."""

import lazy_loader

# A literal: the build reads it from this source, without an import.
__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
