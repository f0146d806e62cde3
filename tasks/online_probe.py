"""What an encoder is worth while it trains without labels."""

import numpy as np

from ..fusion.backbone import Backbone
from ..shards.errors import RequestError
from ..shards.index import Index
from ..shards.stream import ClipRequest, ClipStream
from ..shards.transforms import ClipSpec
from .features import extract_features
from .knn import knn_scores
from .metrics import top_k_accuracy
from .splits import given_split, labelled, take


class OnlineProbe:
    """Nearest neighbours on the fused embedding of `backbone` as it stands: nothing is fitted, nothing learns of it.

    Of the clips of `index` that have a `label`, those of the split value `train` (several joined by `+`) lend the
    neighbours, and those of `test` are told by the `neighbours` nearest. Calling it measures, and returns
    `probe/knn`, the accuracy, and `probe/chance`, what always naming the commonest class would reach. Raises
    `RequestError` for an unknown column or split value, and for clips that would be asked and lent at once.
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
        train: str = "train",
        test: str = "val",
        neighbours: int = 20,
    ) -> None:
        if test in train.split("+"):
            raise RequestError(f"a probe cannot ask the clips of split '{test}', which lend it the neighbours")
        self.backbone, self.spec, self.neighbours = backbone, spec, neighbours
        index, self.classes, labels = labelled(index, label)
        split = given_split(index, train, test)
        used = np.union1d(split.train, split.test)
        self.labels, self.asked = labels[used], np.isin(used, split.test)
        self.stream = ClipStream(take(index, used), request, batch_size, workers=workers)

    def __call__(self, step: int) -> dict[str, float]:
        device = next(self.backbone.parameters()).device
        (features,) = extract_features([self.backbone], self.spec, self.stream, device)
        rows, asked, lent = features.values["fused"], self.asked, ~self.asked
        scores = knn_scores(rows[lent], self.labels[lent], rows[asked], len(self.classes), self.neighbours)
        truth = self.labels[asked]
        return {
            "probe/knn": top_k_accuracy(scores, truth),
            "probe/chance": float(np.bincount(truth).max() / len(truth)),
        }
