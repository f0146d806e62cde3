"""Warnings from the logged means of a training, during it and at its end.

Each warning states the figure, the value at chance or a healthy value, and the config key to change.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# A gate has collapsed onto one modality if its mean weight is above the first and the entropy is below the second.
GATE_COLLAPSED, ENTROPY_COLLAPSED = 0.95, 0.05
# An embedding has collapsed if its standard deviation is below this share of that of uniform unit vectors.
SPREAD_COLLAPSED = 0.1
# A gate is nearly constant if the standard deviation of its weights over clips is below this.
GATE_CONSTANT = 0.02
# Segments of a clip are too similar if their difference, relative to that of clips, is below this. RGB of surv-fight,
# utd-mhad and grid-s1 has .11 to .17.
SEGMENTS_ALIKE = 0.05
# A model learned nothing if McFadden's pseudo R^2, 1 - loss / loss of guessing, is below this.
EXPLAINED = 0.1
# The end of a run is the last quarter of the log, but at least this number of lines.
LAST_LINES = 5

Means = Mapping[str, float | None]


@dataclass(frozen=True)
class Remedies:
    """What to change for each fault, in one kind of training. Texts name config keys.

    gate_collapsed: if the gate uses only one modality.
    embedding_collapsed: if embeddings of all clips are nearly equal.
    gate_unread: if no loss depends on the fused embedding.
    """

    gate_collapsed: str
    embedding_collapsed: str
    gate_unread: str


PRETRAINING = Remedies(
    "raise model.modality_dropout or model.fusion_arguments.balance",
    "add a task that separates clips (cross_modal, vicreg) or raise its weight, or lower train.learning_rate",
    "add 'fused' to the streams of a task (tasks.clip_order.arguments.streams), or the task leave_one_out",
)
FINE_TUNING = Remedies(
    "train a head per modality too (unimodal_weight), or keep the gate fixed at first (aids.gate_warmup)",
    "lower train.learning_rate or encoder_learning_rate",
    "remove 'decision', which uses the heads per modality instead of the fused embedding",
)


def collapse_warnings(means: Means, width: int, remedies: Remedies) -> list[str]:
    """A line for a collapsed gate, and a line for a collapsed embedding.

    means: of the figures of `monitors`, over some steps.
    width: of the embedding.
    remedies: what to change.

    A gate has collapsed if the mean weight of one modality is above .95 and the relative entropy is below .05. An
    embedding has collapsed if its standard deviation is below a tenth of 1/sqrt(width).
    """
    lines = []
    gates = {
        key.removeprefix("gate/"): value
        for key, value in means.items()
        if key.startswith("gate/") and key not in ("gate/loss", "gate/entropy") and value is not None
    }
    if len(gates) > 1 and _value(means, "gate/entropy", 1.0) < ENTROPY_COLLAPSED:
        name = max(gates, key=lambda key: gates[key])
        if gates[name] > GATE_COLLAPSED:
            lines.append(
                f"the gate has collapsed onto {name} (mean weight {gates[name]:.2f}): {remedies.gate_collapsed}"
            )
    spread = _value(means, "embedding/std", 1.0) * width**0.5
    if spread < SPREAD_COLLAPSED:
        lines.append(
            f"the embedding has collapsed (its deviation is {spread:.0%} of a healthy one): "
            f"{remedies.embedding_collapsed}"
        )
    return lines


def segment_warnings(means: Means) -> list[str]:
    """A line for each task on the order of segments if the segments hardly differ."""
    low = {
        key.partition("/")[0]: value
        for key, value in means.items()
        if key.endswith("/segment_difference") and value is not None and value < SEGMENTS_ALIKE
    }
    return [
        f"the segments of a clip hardly differ for task {name} ({value:.3f} of the difference between clips; below "
        f"{SEGMENTS_ALIKE} is too little): their order cannot be learned; use fewer data.segments, which are further "
        f"apart, or drop the task (tasks.{name}=null)"
        for name, value in low.items()
    ]


def task_warnings(lines: Sequence[Means], over: Collection[str] = ()) -> list[str]:
    """A line for each pretext task whose accuracy is at chance at the end of a run.

    lines: logged means of the run.
    over: tasks that were not trained until the end; they are skipped.

    A task is at chance if the 95 % interval (Student's t) of accuracy minus chance over the last lines reaches zero.
    """
    found = []
    for key in [key for key in (lines[-1] if lines else {}) if key.endswith("/accuracy")]:
        name = key.removesuffix("/accuracy")
        if name in over:
            continue
        pairs = [(line.get(key), line.get(f"{name}/chance")) for line in _last(lines)]
        known = [(accuracy, chance) for accuracy, chance in pairs if accuracy is not None and chance is not None]
        if len(known) < 3:
            continue
        accuracies, chances = np.array(known).T
        if _lower_bound(accuracies - chances) <= 0:
            found.append(
                f"task {name} ends at chance (accuracy {accuracies.mean():.3f}, chance {chances.mean():.3f}): train "
                f"longer (train.steps), raise train.learning_rate, or drop it (tasks.{name}=null)"
            )
    return found


def guessing_warnings(lines: Sequence[Means]) -> list[str]:
    """A line if the final loss of the labels is more than nine tenths of the loss of guessing.

    lines: logged means of the run.
    """
    pairs = [(line.get("label/loss"), line.get("label/guessing")) for line in _last(lines)]
    known = [(loss, guess) for loss, guess in pairs if loss is not None and guess is not None]
    if not known:
        return []
    loss, guess = np.array(known).mean(axis=0)
    if guess <= 0 or 1 - loss / guess >= EXPLAINED:
        return []
    return [
        f"the training loss ends near guessing (label/loss {loss:.3f}, guessing {guess:.3f}): the classes were not "
        "learned; train longer (train.steps or train.epochs), raise train.learning_rate or head_learning_rate, or "
        "use more of each clip (data.seconds, data.segments)"
    ]


def gate_warnings(lines: Sequence[Means], remedies: Remedies) -> list[str]:
    """A line if the gate never had a gradient, or a note if it gives all clips nearly the same weights.

    lines: logged means of the run. Only fusions with a learned gate log `fusion/gradient`; others get no warning.
    remedies: what to change.
    """
    gradients = [line["fusion/gradient"] for line in lines if line.get("fusion/gradient") is not None]
    if not gradients:
        return []
    if not any(gradients):
        return [
            "the gate gets no gradient (exactly 0 in every step): no loss uses the fused embedding, so its weights "
            f"are meaningless; {remedies.gate_unread}"
        ]
    spreads = [spread for line in _last(lines) if (spread := line.get("fusion/spread")) is not None]
    if spreads and np.mean(spreads) < GATE_CONSTANT:
        return [
            f"note: the gate gives every clip nearly the same weights (standard deviation {np.mean(spreads):.3f}, "
            f"below {GATE_CONSTANT}): fixed weights (model.fusion=static) should do as well on these clips"
        ]
    return []


def _value(means: Means, key: str, default: float) -> float:
    value = means.get(key)
    return default if value is None else value


def _last(lines: Sequence[Means]) -> Sequence[Means]:
    return lines[-max(len(lines) // 4, LAST_LINES) :]


def _lower_bound(values: np.ndarray) -> float:
    """Lower bound of the two-sided 95 % interval of the mean."""
    from scipy.stats import t  # takes a second to import, at the end of a run

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half)
