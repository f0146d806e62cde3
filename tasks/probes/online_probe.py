"""A probe of the encoder during pretraining."""

from dataclasses import replace

import numpy as np

from ...fusion.backbone import Backbone
from ...shards.clip_spec import ClipSpec
from ...shards.errors import RequestError
from ...shards.index.table import Index
from ...shards.stream import ClipRequest, ClipStream
from ..features.extract import extract_features
from ..metrics.classification import top_k_accuracy
from ..splits.split_plan import SplitPlan, plan_splits
from ..splits.splits import given_split, keep_used, labelled
from .knn import knn_scores


class OnlineProbe:
    """Nearest neighbours on the current fused embedding of `backbone`. Nothing is trained.

    `plan` divides the clips of `index` that have a `label`. In every split, each test clip is classified by its
    `neighbours` nearest training clips. Each clip is encoded once for all folds.

    Calling the probe returns `probe/knn`, the accuracy over the test clips of all splits, and `probe/chance`, the
    accuracy of always predicting the most frequent class.

    Raises `RequestError` for an unknown column or split value, and for test clips that are also training clips.
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: ClipSpec,
        index: Index,
        request: ClipRequest,
        batch_size: int,
        workers: int = 0,
        label: str = "label",
        plan: SplitPlan | None = None,
        neighbours: int = 20,
    ) -> None:
        plan = plan or SplitPlan(test="val")
        if not plan.crossed and plan.test in plan.train.split("+"):
            raise RequestError(
                f"split '{plan.test}' is both training and test split of the probe: choose different ones"
            )
        self.backbone, self.spec, self.neighbours = backbone, spec, neighbours
        index, self.classes, _ = labelled(index, label)
        splits = plan_splits(index, label, plan) if plan.crossed else [given_split(index, plan.train, plan.test)]
        used, self.splits = keep_used(index, [replace(split, validation=split.validation[:0]) for split in splits])
        numbers = {name: number for number, name in enumerate(self.classes)}
        self.labels = np.array([numbers[value] for value in used.column(label)])
        self.stream = ClipStream(used, request, batch_size, workers=workers)

    def __call__(self, step: int) -> dict[str, float]:
        device = next(self.backbone.parameters()).device
        (features,) = extract_features([self.backbone], self.spec, self.stream, device)
        rows, labels, classes = features.values["fused"], self.labels, len(self.classes)
        scores = [
            knn_scores(rows[split.train], labels[split.train], rows[split.test], classes, self.neighbours)
            for split in self.splits
        ]
        truth = np.concatenate([labels[split.test] for split in self.splits])
        return {
            "probe/knn": top_k_accuracy(np.concatenate(scores), truth),
            "probe/chance": float(np.bincount(truth).max() / len(truth)),
        }
