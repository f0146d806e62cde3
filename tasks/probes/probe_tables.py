"""Tables and figures of a probe's record."""

from collections.abc import Sequence

from ..metrics.multilabel import Labelled
from ..records import Cell, Curves, Table
from .label_curve import DRAWS, CurveRow
from .multilabel_probe import MultilabelRow
from .probe_features import ProbeRow
from .retrieval import RANKS
from .retrieval_rows import RetrievalRow

RECALLS = [f"R@{k}" for k in RANKS]


def probe_table(rows: Sequence[ProbeRow], untrained: Sequence[ProbeRow], note: str, few: str = "") -> Table:
    """Returns the linear probe and kNN of every feature, next to those of the untrained encoder.

    - `note`: how the rows were computed, without a full stop.
    - `few`: further sentences about the rows.
    """
    columns = ["feature", "linear", "low", "high", "kNN", "chance", "AUC", "clips", "untrained linear"]
    cells: list[list[Cell]] = [
        [
            *(row.feature, row.accuracy, row.low, row.high, row.knn, row.chance, row.auc, row.clips),
            *(control.accuracy, control.knn),
        ]
        for row, control in zip(rows, untrained, strict=True)
    ]
    note = f"{note}. AUC: mean over splits. Chance: always predicting the most frequent class (AUC: 0.5).{few}"
    return Table("Frozen features", [*columns, "untrained kNN"], cells, note)


def multilabel_table(
    rows: Sequence[MultilabelRow], untrained: Sequence[MultilabelRow], note: str, few: str = ""
) -> Table:
    """Returns the same table for clips with several classes."""
    columns = ["feature", "mAP", "low", "high", "kNN mAP", "chance", "micro F1", "macro F1", "clips"]
    cells: list[list[Cell]] = [
        [
            row.feature,
            *(row.mean_average_precision, row.low, row.high, row.knn, row.chance),
            *(row.micro_f1, row.macro_f1, row.clips),
            *(control.mean_average_precision, control.knn),
        ]
        for row, control in zip(rows, untrained, strict=True)
    ]
    note += ". mAP: mean over splits. Chance: mean share of the classes. "
    note += f"F1: at class thresholds chosen without the test clips.{few}"
    return Table("Frozen features", [*columns, "untrained mAP", "untrained kNN"], cells, note)


def class_precision_table(rows: Sequence[MultilabelRow], clips: Labelled) -> Table:
    """Returns the average precision of each class by feature. Chance is the class's share of the clips."""
    shares = clips.labels.mean(axis=0).tolist()
    cells: list[list[Cell]] = [
        [name, *(row.precisions[number] for row in rows), share]
        for number, (name, share) in enumerate(zip(clips.classes, shares, strict=True))
    ]
    columns = ["class", *(row.feature for row in rows), "chance"]
    return Table(
        "Average precision by class",
        columns,
        cells,
        "Linear probe of every feature, mean over splits. Chance: share of the class.",
    )


def class_retrieval_table(rows: Sequence[RetrievalRow]) -> Table:
    """Returns how often test clips find their class among the training clips."""
    cells: list[list[Cell]] = [[row.query, *row.recall.values(), row.chance, row.queries] for row in rows]
    note = f"A test clip searches for its class among {_gallery(rows)} training clips, by cosine."
    return Table("Retrieval of the same class", ["feature", *RECALLS, "chance R@1", "queries"], cells, note)


def cross_modal_table(rows: Sequence[RetrievalRow]) -> Table:
    """Returns how often one modality of a test clip finds another modality of the same clip."""
    cells: list[list[Cell]] = [
        [f"{row.query} > {row.gallery_feature}", *row.recall.values(), row.median_rank, row.chance, row.queries]
        for row in rows
    ]
    note = (
        f"One modality of a test clip searches for the other among {_gallery(rows)} test clips, by cosine. "
        "A ridge regression fitted on the training clips, without labels, maps one feature space to the other."
    )
    columns = ["from > to", *RECALLS, "median rank", "chance R@1", "queries"]
    return Table("Retrieval across modalities", columns, cells, note)


def label_curve_table(rows: Sequence[CurveRow]) -> Table:
    """Returns the accuracy of the linear probe by share of the labels, and of few-shot episodes."""
    shots = sorted({count for row in rows for count in row.few_shot})
    columns = ["feature", *(f"{share:.0%}" for share in rows[0].fractions), "chance"]
    columns += [f"{count} shot" for count in shots]
    cells: list[list[Cell]] = [
        [
            *(row.feature, *row.mean, row.chance),
            *(row.few_shot[count][0] if count in row.few_shot else None for count in shots),
        ]
        for row in rows
    ]
    clips = ", ".join(f"{count:.0f}" for count in rows[0].clips)
    note = f"Linear probe on a share of the labels: {clips} clips. Mean of {DRAWS} draws."
    if shots:
        note += f" Shots: nearest class mean, episodes of {rows[0].ways} classes (chance {1 / rows[0].ways:.3g}). "
        note += "Labelled clips and queries are from different groups."
    return Table("Few labels", columns, cells, note)


def label_curve_figure(rows: Sequence[CurveRow]) -> Curves:
    """Returns accuracy against the share of the labels, one line per feature."""
    series = {row.feature: list(zip(row.fractions, row.mean, strict=True)) for row in rows}
    return Curves("Accuracy by share of the labels", "share of the labels", "accuracy", series)


def _gallery(rows: Sequence[RetrievalRow]) -> str:
    sizes = sorted({round(row.gallery) for row in rows if row.queries})
    return "no" if not sizes else str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
