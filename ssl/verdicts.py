"""Warnings from the logged means of a training, while it runs and at its end.

Every line states the figure, the value of chance or a healthy value, and the config key to change.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Mean weight above which, and entropy below which, a gate has collapsed onto one modality.
GATE_COLLAPSED, ENTROPY_COLLAPSED = 0.95, 0.05
# Deviation below which an embedding has collapsed, as a share of that of unit vectors on the whole sphere.
SPREAD_COLLAPSED = 0.1
# Standard deviation of a gate weight over clips below which the gate is nearly a constant.
GATE_CONSTANT = 0.02
# Difference of a clip's segments, relative to that of clips, below which they are too much alike. Pictures of
# surv-fight, utd-mhad and grid-s1 have .11 to .17.
SEGMENTS_ALIKE = 0.05
# McFadden's pseudo R^2, the share of the loss of guessing that the model has removed, below which it learned nothing.
EXPLAINED = 0.1
# The end of a run: the last quarter of the log, at least this many lines.
LAST_LINES = 5

Means = Mapping[str, float | None]


@dataclass(frozen=True)
class Remedies:
    """The config keys to change, by kind of fault, for one kind of training."""

    gate_collapsed: str
    embedding_collapsed: str
    gate_unread: str


PRETRAINING = Remedies(
    "raise model.modality_dropout or model.fusion_arguments.balance",
    "add or raise a task that pushes clips apart (cross_modal, vicreg), or lower train.learning_rate",
    "add 'fused' to the streams of a task (tasks.clip_order.arguments.streams), or the task leave_one_out",
)
FINE_TUNING = Remedies(
    "give the modalities heads of their own (unimodal_weight), or hold the gate for a while (aids.gate_warmup)",
    "lower train.learning_rate or encoder_learning_rate",
    "leave out 'decision', which reads the heads of the modalities in its place",
)


def collapse_warnings(means: Means, width: int, remedies: Remedies) -> list[str]:
    """A line for a collapsed gate and for a collapsed embedding.

    means: of the figures of `monitors`, over some steps.
    width: of the embedding.
    remedies: the config keys to name.

    A gate has collapsed if one modality's mean weight is above .95 and the relative entropy below .05. An embedding
    has collapsed if its deviation is below a tenth of 1/sqrt(width).
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
    """A line for each task that predicts the order of segments which hardly differ."""
    low = {
        key.partition("/")[0]: value
        for key, value in means.items()
        if key.endswith("/segment_difference") and value is not None and value < SEGMENTS_ALIKE
    }
    return [
        f"the segments of a clip hardly differ for task {name} ({value:.3f} of what clips differ by; "
        f"{SEGMENTS_ALIKE} is little): their order cannot be learned; take windows further apart (fewer "
        f"data.segments), or drop the task (tasks.{name}=null)"
        for name, value in low.items()
    ]


def task_warnings(lines: Sequence[Means], over: Collection[str] = ()) -> list[str]:
    """A line for each pretext task whose accuracy is at chance at the end of a run.

    lines: the logged means of the run.
    over: tasks that were no longer trained at its end; they are skipped.

    At chance: the 95 % interval (Student's t) of accuracy minus chance over the last lines includes zero or less.
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
    """A line if the loss of the labels ends near that of guessing: less than a tenth of it is removed."""
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
        "show more of each clip (data.seconds, data.segments)"
    ]


def gate_warnings(lines: Sequence[Means], remedies: Remedies) -> list[str]:
    """A line if the gate never had a gradient, or a note if it gives all clips nearly the same weights.

    Only fusions with a learned gate log `fusion/gradient`.
    """
    gradients = [line["fusion/gradient"] for line in lines if line.get("fusion/gradient") is not None]
    if not gradients:
        return []
    if not any(gradients):
        return [
            "the gate gets no gradient (exactly 0 in every step): no loss reads the fused embedding, so its weights "
            f"say nothing; {remedies.gate_unread}"
        ]
    spreads = [spread for line in _last(lines) if (spread := line.get("fusion/spread")) is not None]
    if spreads and np.mean(spreads) < GATE_CONSTANT:
        return [
            f"note: the gate gives every clip nearly the same weights (standard deviation {np.mean(spreads):.3f}, "
            f"{GATE_CONSTANT} is little): fixed weights (model.fusion=static) would do as well on these clips"
        ]
    return []


def _value(means: Means, key: str, default: float) -> float:
    value = means.get(key)
    return default if value is None else value


def _last(lines: Sequence[Means]) -> Sequence[Means]:
    return lines[-max(len(lines) // 4, LAST_LINES) :]


def _lower_bound(values: np.ndarray) -> float:
    """Of the two-sided 95 % interval of their mean."""
    from scipy.stats import t  # takes a second to import, at the end of a run

    half = float(t.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean() - half)
