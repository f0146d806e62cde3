"""What an encoder is worth while it trains without labels."""

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
    """Nearest neighbours on the fused embedding of `backbone` as it stands: nothing is fitted, nothing learns of it.

    The clips of `index` that have a `label` are divided as `plan` says: in every split the test clips are told by
    their `neighbours` nearest train clips. Each clip is encoded once, whatever the folds. Calling it measures, and
    returns `probe/knn`, the accuracy over the test clips of all splits, and `probe/chance`, what always naming the
    commonest class would reach. Raises `RequestError` for an unknown column or split value, and for clips that would
    be asked and lend neighbours at once.
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
            raise RequestError(f"a probe cannot ask the clips of split '{plan.test}', which lend it the neighbours")
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
