"""A scorer that runs a bundle's classifier with torch."""

from typing import Any

import torch
from numpy.typing import NDArray

from ...fusion.bundle.bundle import Bundle
from ...fusion.classifier import Classifier
from ...shards.clip_spec import ClipSpec
from ...shards.clips.piece import Window
from ...shards.errors import RequestError
from ...shards.live.sliding import batch_windows
from ...shards.transforms import Preparation


class EagerScorer:
    """Scores windows with the classifier of a bundle. Raises `RequestError` if the bundle has no classes."""

    def __init__(self, bundle: Bundle) -> None:
        if not isinstance(bundle.model, Classifier):
            raise RequestError("this bundle is an encoder without classes: give one made by `modalgate finetune`")
        self.model = bundle.model
        self.spec: ClipSpec = bundle.spec
        self.modalities = bundle.model.backbone.modalities
        self.classes = bundle.model.classes
        self.positive = bundle.positive
        self.multilabel = bundle.model.multilabel
        self.application = bundle.application
        self.preparation = Preparation(bundle.spec)

    @torch.inference_mode()
    def score(self, windows: list[Window]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Returns probabilities (n, C) and gate weights (n, M)."""
        batch = batch_windows(windows, self.modalities)
        scored = self.model(self.preparation(batch), batch.present, batch.start)
        return self.model.probabilities(scored.logits[:, 0]).numpy(), scored.encoded.weights[:, 0].numpy()
