"""The last phase of fine-tuning with a gate: experts and gate train together, near the experts trained alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...fusion.backbone import alone
from ...fusion.classifier import Classifier
from ...fusion.mechanisms.reliability import ReliabilityGate
from ...shards.errors import RequestError
from ...tasks.finetuning.balance.aids import AidsConfig
from ..config.defaults import GATE
from ..schema import FinetuneConfig
from ..training.device import ranks
from .recipe import Recipe, train_classifier

# Name of the folder of this phase in a run.
JOINT = "joint"
# Factor on the learning rate, and weight of the distance to the experts' features.
RATE, DISTILLATION = 0.1, 1.0


def check_joint(config: FinetuneConfig) -> None:
    """Raises `RequestError` if the settings have a joint phase but no gate, or nothing that trains in it."""
    if not config.joint:
        return
    if config.decision != GATE:
        raise RequestError(f"config key 'joint' trains decision '{GATE}' with its experts: set decision={GATE}")
    if not config.encoder_learning_rate:
        raise RequestError("config key 'joint' trains the encoders: set encoder_learning_rate above 0, or joint=0")


def train_jointly(
    recipe: Recipe, classifier: Classifier, numbers: NDArray[np.int64], run: Path, resume: bool = False
) -> None:
    """Trains experts and fitted gate of `classifier` in place on the samples `numbers`, by the joint loss.

    It takes `joint` times the steps, at `RATE` times the learning rate. Each encoder stays near its state before this
    phase: UMT (Du et al. 2023), with the experts as teachers. Metrics and checkpoints are in RUN/joint.
    """
    config = recipe.config
    if not config.joint or not isinstance(classifier.decision, ReliabilityGate):
        return
    teachers = {
        name: Classifier(alone(classifier.backbone, name), recipe.classes).requires_grad_(False)
        for name in classifier.backbone.modalities
    }
    loop = replace(
        config.train,
        steps=max(round(config.joint * config.train.steps), 1),
        learning_rate=config.train.learning_rate * RATE,
    )
    aids = AidsConfig(distillation=DISTILLATION)
    phase = replace(recipe, config=replace(config, aids=aids, train=loop))
    place = run / JOINT
    if ranks()[0] == 0:
        print(f"{JOINT}: experts and gate train together for {loop.steps} steps", flush=True)
    again = resume and (place / "config.yaml").is_file()
    train_classifier(phase, classifier, numbers, place, teachers=teachers, resume=again)
