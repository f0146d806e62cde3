"""The typed shape of every config: what may be set, its default, and the values it can take."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ..fusion.spec import BackboneSpec
from ..shards.augment import AugmentConfig
from ..tasks.aids import AidsConfig


def _one_of(default: str, *others: str) -> Any:
    return field(default=default, metadata={"choices": (default, *others)})


def _between(default: Any, low: float, high: float | None = None) -> Any:
    """A number in [low, high]."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass
class DataConfig:
    """Which clips, and what is cut from each.

    `shards`: a packed folder; `modalities`: empty means all in its index; `segments` windows of `seconds` per clip,
    `frames` video frames in each; `stretch`: the share of its clip that a window covers, played at the speed at which
    it lasts `seconds` (0: as it is); `size`: pixels of the square crop, null for the packed short side; `split`: the
    training clips' value of the column `split`, several joined by `+`, null for all; `label`: the column to learn;
    `labels`: columns of 0 and 1, a class each, in its place, for the task multilabel;
    `folds`: cross-validation folds that keep a `group` together (0: use `split` and `test_split`), or do not where
    `leaky`; `leave_one_out`: a fold per value of `group`; `lists`: official train and test lists of files by turns;
    `fold`: only that one of them. `present`: only clips that have these modalities; `classes`: only these values of
    `label`; `fraction`: share of the training clips in use; `max_damaged`: share of undecodable clips that ends
    training.
    """

    shards: str = MISSING
    modalities: list[str] = field(default_factory=list)
    segments: int = _between(3, 1)
    seconds: float = _between(1.0, 0.01)
    frames: int = _between(8, 1)
    stretch: float = _between(0.0, 0, 1)
    size: int | None = _between(None, 8)
    batch_size: int = _between(32, 1)
    workers: int = _between(1, 0)
    split: str | None = None
    test_split: str = "test"
    label: str = "label"
    labels: list[str] = field(default_factory=list)
    folds: int = _between(0, 0)
    fold: int | None = _between(None, 0)
    group: str = "group"
    leaky: bool = False
    leave_one_out: bool = False
    lists: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    fraction: float = _between(1.0, 0.0001, 1)
    max_damaged: float = _between(0.05, 0, 1)


@dataclass
class TaskConfig:
    """A pretext task's weight in the sum of losses, and its own arguments.

    `begin`, `end`: shares of the run between which it counts; over the share `ramp` its weight rises to the full.
    """

    weight: float = _between(1.0, 0)
    begin: float = _between(0.0, 0, 1)
    end: float = _between(1.0, 0, 1)
    ramp: float = _between(0.0, 0, 1)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainConfig:
    """The loop: an optimiser with a cosine schedule after a linear `warmup` (a share of `steps`).

    `epochs`: passes over the training clips, in place of `steps`; `strategy`, of several processes: ddp, or fsdp,
    where each keeps a share of weights and moments; `compile`: the encoders by torch.compile;
    `momentum`: of sgd and lars; `average`: decay of the moving average of the weights that is exported, 0 exports
    the last step's; `accumulate`: batches per step; `precision` auto: bf16 where the GPU has it, fp32 on a CPU.
    A checkpoint is saved after every `checkpoint_every` steps and `checkpoint_minutes`; the newest `keep` stay, and
    the one with the best `best`: a logged metric, lower is better where its name ends in loss; null keeps none.
    Evaluations that measure `best` are followed by a checkpoint.
    `nonfinite_limit`: so many steps in a row whose loss or gradient is not finite end the run.
    `hang_minutes`: where one of several processes does not move for so long, all end and it is named.
    `deterministic`: only algorithms that give the same result twice, which some GPU operations lack.
    `log_every` in steps; `threads`: of torch on the CPU, null: the cores that the decoding processes leave.
    """

    steps: int = _between(400, 1)
    epochs: float | None = _between(None, 0.001)
    learning_rate: float = _between(1e-3, 0)
    optimizer: str = _one_of("adamw", "sgd", "lars")
    momentum: float = _between(0.9, 0, 1)
    weight_decay: float = _between(0.05, 0)
    warmup: float = _between(0.05, 0, 1)
    clip_norm: float = _between(1.0, 0)
    average: float = _between(0.0, 0, 1)
    accumulate: int = _between(1, 1)
    precision: str = _one_of("auto", "fp32", "bf16", "fp16")
    strategy: str = _one_of("ddp", "fsdp")
    compile: bool = False
    log_every: int = _between(10, 1)
    checkpoint_every: int = _between(200, 1)
    checkpoint_minutes: float = _between(30.0, 0)
    keep: int = _between(2, 1)
    best: str | None = "loss"
    nonfinite_limit: int = _between(10, 1)
    hang_minutes: float = _between(10.0, 0.01)
    deterministic: bool = False
    threads: int | None = _between(None, 1)


@dataclass
class ProbeConfig:
    """The encoder probed every `every` steps while it pretrains: nearest neighbours on its fused embedding.

    `shards`: a packed folder with labels, null for that of the training; `label`: their column; the clips with these
    values of the column `split`: `train` lends the neighbours, `test` is asked, by its `neighbours` nearest. With
    `folds`, for sets without such a column, each fold is asked in turn, and a `group` is kept in one fold.
    """

    every: int = _between(100, 1)
    shards: str | None = None
    label: str = "label"
    train: str = "train"
    test: str = "val"
    folds: int = _between(0, 0)
    group: str = "group"
    neighbours: int = _between(20, 1)


@dataclass
class PretrainConfig:
    """Self-supervised pretraining: `tasks` by name over one backbone. The run folder is `out`/`name`.

    Where `data` divides the clips by folds, groups left out or lists, each split gets an encoder of its own that has
    not seen its test clips. `probe`: labelled clips to watch the encoder by; null has none.
    `tensorboard`: the metrics also as events in RUN/tensorboard.
    """

    name: str = "pretrain"
    out: str = "runs"
    seed: int = _between(0, 0)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: BackboneSpec = field(default_factory=BackboneSpec)
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    probe: ProbeConfig | None = None
    train: TrainConfig = field(default_factory=TrainConfig)
    wandb: str = _one_of("offline", "online", "disabled")
    tensorboard: bool = False


@dataclass
class FinetuneConfig:
    """Supervised training of a classifier on an encoder.

    `encoder`: a bundle or run to start from, also one that was divided as `data` is here; null starts `model` from
    random weights. `positive`: for the task violence, the label that means it. The task multilabel learns a column
    whose values name several classes (`fight|shouting`, and `|` for none), or the columns `data.labels`. The learning
    rates multiply `train.learning_rate`;
    `unimodal_weight`: weight of one auxiliary head per modality; `decision`: a mechanism that joins those heads'
    scores, in place of a head on what is fused; `balanced`: classes weigh the same whatever their counts. `aids`:
    remedies for modalities that compete.

    `layer_decay`: factor on the rate per layer below an encoder's top; until the share `heads_first` of the steps
    only the heads train, and by the share `unfrozen_by` the lowest layer does. `hold_out`: the given validation
    clips, or a fifth of the training groups, choose the threshold and the temperature, and do not train;
    `evaluate_every` steps they are scored, and the best state is kept; `patience`: so many scorings in a row without
    a better one end the run (0: none do).
    """

    name: str = "finetune"
    out: str = "runs"
    seed: int = _between(0, 0)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    encoder: str | None = None
    model: BackboneSpec | None = None
    task: str = _one_of("action", "violence", "multilabel")
    positive: str | None = None
    head_learning_rate: float = _between(10.0, 0)
    encoder_learning_rate: float = _between(1.0, 0)
    dropout: float = _between(0.2, 0, 1)
    unimodal_weight: float = _between(0.0, 0)
    decision: str | None = None
    balanced: bool = False
    aids: AidsConfig = field(default_factory=AidsConfig)
    layer_decay: float = _between(1.0, 0.01, 1)
    heads_first: float = _between(0.0, 0, 1)
    unfrozen_by: float = _between(0.0, 0, 1)
    hold_out: bool = False
    evaluate_every: int = _between(0, 0)
    patience: int = _between(0, 0)
    train: TrainConfig = field(default_factory=TrainConfig)
    wandb: str = _one_of("offline", "online", "disabled")
    tensorboard: bool = False


@dataclass
class RowConfig:
    """A row of a study: a fusion mechanism and its arguments; `aids` as in fine-tuning."""

    fusion: str = MISSING
    arguments: dict[str, Any] = field(default_factory=dict)
    aids: AidsConfig = field(default_factory=AidsConfig)


@dataclass
class StudyConfig:
    """Fusion mechanisms compared on one set: the same encoders, the same budget, paired by clip and seed.

    Every modality's encoder is trained alone on its labels (`experts`); then every row is trained on its stored
    features (`fusion`), each modality alone among them. `rows`: by name, or a list of fusions
    as they are, such as [concat,softmax]; empty means every mechanism. `pretrained`: a bundle or run whose encoders
    those of `model`, which must be like them, start from, or a run of `pretrain` that was divided as `data` is here,
    each split from its own. `expert_split`: other clips for the
    encoders than `data.split`; null means the same. `noise`: levels of the noise curve. `metric`: accuracy, or auc of
    the class `positive`. `jobs`: processes, null for one per core. `unimodal_weight`: of the heads per modality while
    a row is trained. `validation_group`: the column whose values stay together where validation clips are taken from
    the training clips; null means `data.group`. `taught_noise`: share of a row's training clips in which one
    modality, each as often, has noise of one of the levels of `noise`.
    """

    name: str = "study"
    out: str = "runs"
    seed: int = _between(0, 0)
    seeds: int = _between(3, 1)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: BackboneSpec = field(default_factory=BackboneSpec)
    rows: dict[str, RowConfig] = field(default_factory=dict)
    pretrained: str | None = None
    expert_split: str | None = None
    validation_group: str | None = None
    taught_noise: float = _between(0.0, 0, 1)
    experts: TrainConfig = field(default_factory=TrainConfig)
    fusion: TrainConfig = field(default_factory=TrainConfig)
    fusion_batch_size: int = _between(64, 2)
    unimodal_weight: float = _between(0.3, 0)
    noise: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    metric: str = _one_of("accuracy", "auc")
    positive: str | None = None
    jobs: int | None = _between(None, 1)


Config = PretrainConfig | FinetuneConfig | StudyConfig
KINDS: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "study": StudyConfig}
