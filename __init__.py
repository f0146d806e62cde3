"""modalgate: self-supervised multimodal pretraining on unlabelled video, with gated fusion."""

__version__ = "0.1.0"
