"""The typed shape of every config: what may be set, its default, and the values it can take."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ..fusion.spec import BackboneSpec
from ..shards.clips.augment import AugmentConfig
from ..tasks.finetuning.aids import AidsConfig


def _one_of(default: str, *others: str) -> Any:
    return field(default=default, metadata={"choices": (default, *others)})


def _between(default: Any, low: float, high: float | None = None) -> Any:
    """A number in [low, high]."""
    return field(default=default, metadata={"range": (low, high)})


@dataclass
class DataConfig:
    """Which clips are used, and what is cut from each."""

    shards: Any = field(default=MISSING, metadata={"texts": True})
    """A packed folder, or a list of packed folders that are read as one set, as in `[shards/day,shards/night]`."""
    modalities: list[str] = field(default_factory=list)
    """Modalities to use, such as [rgb,audio]. Empty: all that the shards have."""
    segments: int = _between(3, 1)
    """Windows cut from each clip. Evaluation averages over as many."""
    seconds: float | None = _between(None, 0.01)
    """Length of a window in seconds. Null: that of the encoder a training starts from, else 1."""
    frames: int | None = _between(None, 1)
    """Video frames in each window, at even distances. Null: those of the encoder a training starts from, else 8."""
    stretch: float | None = _between(None, 0, 1)
    """Share of its clip that a window covers, played so that it lasts `seconds`; not for sound. 0: windows keep
    their own speed. Null: as the encoder a training starts from, else 0."""
    size: int | None = _between(None, 8)
    """Side of the square crop in pixels. Null: the packed short side."""
    batch_size: int = _between(32, 1)
    """Clips in a batch, over all processes."""
    workers: int = _between(1, 0)
    """Processes that decode clips. 0: the training process decodes them itself."""
    split: str | None = None
    """Value of the column `split` whose clips train; join several with `+`. Null: all clips in pretraining, `train`
    elsewhere."""
    test_split: str = "test"
    """Value of the column `split` whose clips are tested."""
    label: str = "label"
    """Column that holds the label."""
    labels: list[str] = field(default_factory=list)
    """Columns of 0 and 1, one class each, for the task multilabel. Empty: the column `label` names the classes."""
    folds: int | None = _between(None, 0)
    """Number of cross-validation folds; a fold keeps the clips of one `group` together. 0: the column `split`
    divides the clips. Null: that column where it can, else folds."""
    fold: int | None = _between(None, 0)
    """Number of the only fold to run, counted from 0. Null: all folds."""
    group: str = "group"
    """Column whose clips stay on one side of a split, such as the person or the recording."""
    leaky: bool = False
    """Whether folds may divide a group. Scores are then too good."""
    leave_one_out: bool = False
    """Whether every value of `group` is a fold of its own."""
    lists: list[str] = field(default_factory=list)
    """Files of official splits, in pairs of training list and test list. Empty: none."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """By label column, its value or a list of values: only such clips are used, as in `where.camera=cam0`."""
    present: list[str] = field(default_factory=list)
    """Use only clips that have all these modalities. Empty: every clip."""
    classes: list[str] = field(default_factory=list)
    """Use only clips with these values of `label`. Empty: every value."""
    fraction: float = _between(1.0, 0.0001, 1)
    """Share of the training clips that is used."""
    max_damaged: float = _between(0.05, 0, 1)
    """Share of undecodable clips above which training ends with an error."""


@dataclass
class TaskConfig:
    """One pretext task of the mixture."""

    weight: float = _between(1.0, 0)
    """Factor on the task's loss in the sum of losses."""
    begin: float = _between(0.0, 0, 1)
    """Share of the run after which the task starts to count. 0: from the first step."""
    end: float = _between(1.0, 0, 1)
    """Share of the run after which the task no longer counts. 1: up to the last step."""
    ramp: float = _between(0.0, 0, 1)
    """Share of the run over which the weight rises from 0 to `weight`. 0: at once."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The task's own arguments. Empty: its defaults."""


@dataclass
class TrainConfig:
    """The training loop: length, optimiser, schedule, precision and checkpoints."""

    steps: int = _between(400, 1)
    """Optimiser steps. Give `steps` or `epochs`, not both."""
    epochs: float | None = _between(None, 0.001)
    """Passes over the training clips, in place of `steps`. Null: `steps` counts."""
    learning_rate: float = _between(1e-3, 0)
    """Peak learning rate. It rises linearly over `warmup`, then falls to 0 along a cosine."""
    optimizer: str = _one_of("adamw", "sgd", "lars")
    """Optimiser."""
    momentum: float = _between(0.9, 0, 1)
    """Momentum of sgd and lars; adamw does not use it."""
    weight_decay: float = _between(0.05, 0)
    """Weight decay. Norms and biases do not decay."""
    warmup: float = _between(0.05, 0, 1)
    """Share of the steps over which the learning rate rises. 0: it starts at its peak."""
    clip_norm: float = _between(1.0, 0)
    """Largest norm of the gradient; a larger one is scaled down. 0: no limit."""
    average: float = _between(0.0, 0, 1)
    """Decay of the moving average of the weights, which is then evaluated and exported, such as 0.999. 0: no
    average."""
    accumulate: int = _between(1, 1)
    """Batches per optimiser step."""
    precision: str = _one_of("auto", "fp32", "bf16", "fp16")
    """Number format of the forward pass. auto: fp32 on a CPU, on a GPU bf16, or fp16 where it has no bf16."""
    strategy: str = _one_of("ddp", "fsdp")
    """How several processes share the model. ddp: each holds all of it; fsdp: each holds a part of weights and
    optimiser state."""
    compile: bool = False
    """Whether torch.compile compiles the encoders. The first steps then take a minute or more."""
    log_every: int = _between(10, 1)
    """Steps between two lines of the log."""
    checkpoint_every: int = _between(200, 1)
    """Steps between two checkpoints."""
    checkpoint_minutes: float = _between(30.0, 0)
    """Longest time between two checkpoints, in minutes."""
    keep: int = _between(2, 1)
    """Number of newest checkpoints that are kept."""
    best: str | None = "loss"
    """Logged metric whose best checkpoint is also kept; lower is better if its name ends in `loss`. Null: only the
    newest are kept."""
    nonfinite_limit: int = _between(10, 1)
    """Steps in a row with a loss or gradient that is not finite after which the run ends."""
    hang_minutes: float = _between(10.0, 0.01)
    """Minutes without progress of one of several processes after which all end and that one is named."""
    deterministic: bool = False
    """Whether only algorithms run that give the same result every time. Some GPU operations have none and raise an
    error."""
    threads: int | None = _between(None, 1)
    """Threads of torch on the CPU. Null: the cores that the decoding processes do not use."""


@dataclass
class ProbeConfig:
    """An online probe: nearest neighbours on the fused embedding, while the encoder pretrains."""

    every: int = _between(100, 1)
    """Steps between two probes."""
    shards: str | None = None
    """Folder of packed shards with labels. Null: the training shards."""
    label: str = "label"
    """Column that holds the label."""
    train: str = "train"
    """Value of the column `split` whose clips serve as neighbours."""
    test: str = "val"
    """Value of the column `split` whose clips are scored."""
    folds: int = _between(0, 0)
    """Number of folds, for shards without a column `split`. 0: the column `split` divides the clips."""
    group: str = "group"
    """Column whose clips stay in one fold."""
    neighbours: int = _between(20, 1)
    """Number of nearest neighbours that vote."""


@dataclass
class PretrainConfig:
    """Self-supervised pretraining: pretext tasks over one backbone.

    Where `data` divides the clips by folds, groups or lists, each split gets an encoder of its own that has not seen
    its test clips.
    """

    name: str = "pretrain"
    """Name of the run."""
    out: str = "runs"
    """Folder of all runs. The run is written to `out`/`name`."""
    seed: int = _between(0, 0)
    """Seed of every random choice."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which clips are used, and what is cut from each."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the training clips."""
    model: BackboneSpec = field(default_factory=BackboneSpec)
    """Encoders by modality, and the fusion over them."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """Pretext tasks by name, or classes of your own, `package.module:Class`; their weighted losses are summed."""
    probe: ProbeConfig | None = None
    """Online probe on labelled clips; it does not train the encoder. Null: no probe."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""
    wandb: str = _one_of("offline", "online", "disabled")
    """Weights & Biases. offline: files in the run folder, to upload later; online: uploads at once; disabled:
    writes nothing."""
    tensorboard: bool = False
    """Whether metrics are also written as TensorBoard events, to RUN/tensorboard."""


@dataclass
class FinetuneConfig:
    """Supervised training of a classifier, on a pretrained encoder or from random weights."""

    name: str = "finetune"
    """Name of the run."""
    out: str = "runs"
    """Folder of all runs. The run is written to `out`/`name`."""
    seed: int = _between(0, 0)
    """Seed of every random choice."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which clips are used, and what is cut from each."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the training clips."""
    encoder: str | None = None
    """Bundle or pretraining run to start from. Null: `model` starts from random weights."""
    model: BackboneSpec | None = None
    """Encoders by modality, and the fusion over them, used if `encoder` is null. Null: the model comes from
    `encoder`."""
    task: str = _one_of("action", "violence", "multilabel")
    """What is predicted. action: one class of several; violence: one of two classes, with AUC and a threshold;
    multilabel: any number of classes."""
    positive: str | None = None
    """For the task violence: the label that means violence. Null in the other tasks."""
    head_learning_rate: float = _between(10.0, 0)
    """Factor on `train.learning_rate` for the classifier heads."""
    encoder_learning_rate: float = _between(1.0, 0)
    """Factor on `train.learning_rate` for the encoders and the fusion. 0: they do not train."""
    dropout: float = _between(0.2, 0, 1)
    """Share of features set to 0 before the classifier head."""
    unimodal_weight: float = _between(0.0, 0)
    """Weight of the losses of one auxiliary head per modality. 0: no such heads."""
    decision: str | None = None
    """Fusion of class scores, over one head per modality, in place of a head on the fused embedding. Null: a head
    on the fused embedding."""
    balanced: bool = False
    """Whether all classes weigh the same in the loss, whatever their counts."""
    aids: AidsConfig = field(default_factory=AidsConfig)
    """Remedies for modalities that compete in training."""
    layer_decay: float = _between(1.0, 0.01, 1)
    """Factor on the learning rate for each layer below an encoder's top. 1: all layers train at one rate."""
    heads_first: float = _between(0.0, 0, 1)
    """Share of the steps in which only the heads train. 0: everything trains from the first step."""
    unfrozen_by: float = _between(0.0, 0, 1)
    """Share of the steps by which the lowest layer trains; layers start from the top down. 0: all layers start
    together."""
    hold_out: bool = False
    """Whether validation clips, or a fifth of the training groups, choose threshold and temperature and do not
    train."""
    evaluate_every: int = _between(0, 0)
    """Steps between two scorings of the validation clips; the best state is kept. 0: they are not scored in
    training."""
    patience: int = _between(0, 0)
    """Scorings in a row without a better one after which training ends. 0: training runs to its last step."""
    final: bool = False
    """After the splits, train one more classifier on all their clips, with the settings that they validated; its
    threshold and temperature are fitted on their test scores."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""
    wandb: str = _one_of("offline", "online", "disabled")
    """Weights & Biases. offline: files in the run folder, to upload later; online: uploads at once; disabled:
    writes nothing."""
    tensorboard: bool = False
    """Whether metrics are also written as TensorBoard events, to RUN/tensorboard."""


@dataclass
class RowConfig:
    """One row of a study: a fusion mechanism."""

    fusion: str = MISSING
    """Name of the fusion mechanism."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The mechanism's own arguments. Empty: its defaults."""
    aids: AidsConfig = field(default_factory=AidsConfig)
    """Remedies for modalities that compete in training."""


@dataclass
class StudyConfig:
    """Fusion mechanisms compared on one set: the same encoders, the same budget, paired by clip and seed.

    Each modality's encoder is trained alone on labels (`experts`). Then every row is trained on its stored features
    (`fusion`), each modality alone among them.
    """

    name: str = "study"
    """Name of the run."""
    out: str = "runs"
    """Folder of all runs. The run is written to `out`/`name`."""
    seed: int = _between(0, 0)
    """First seed. Runs use this one and those that follow it."""
    seeds: int = _between(3, 1)
    """Number of seeds."""
    data: DataConfig = field(default_factory=DataConfig)
    """Which clips are used, and what is cut from each."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the clips that train the encoders."""
    model: BackboneSpec = field(default_factory=BackboneSpec)
    """Encoders by modality. The rows replace the fusion."""
    rows: dict[str, RowConfig] = field(default_factory=dict)
    """Rows by name, or a list of fusions with their defaults, such as [concat,softmax]. Empty: every fusion
    mechanism with its defaults."""
    pretrained: str | None = None
    """Bundle or pretraining run whose encoders, of the same networks as `model`, are the start. Null: random
    weights."""
    expert_split: str | None = None
    """Value of the column `split` whose clips train the encoders. Null: the same clips as the rows."""
    validation_group: str | None = None
    """Column whose clips stay together where validation clips come from the training clips. Null: `data.group`."""
    taught_noise: float = _between(0.0, 0, 1)
    """Share of a row's training clips in which one modality gets noise of a level of `noise`. 0: rows train on
    clean clips."""
    experts: TrainConfig = field(default_factory=TrainConfig)
    """The training loop of the encoders."""
    fusion: TrainConfig = field(default_factory=TrainConfig)
    """The training loop of the rows."""
    fusion_batch_size: int = _between(64, 2)
    """Clips in a batch while a row trains."""
    unimodal_weight: float = _between(0.3, 0)
    """Weight of the losses of one head per modality while a row trains. 0: no such heads."""
    noise: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Levels of noise at which every row is tested, in standard deviations. Empty: no noise curve."""
    metric: str = _one_of("accuracy", "auc")
    """What rows are compared by."""
    positive: str | None = None
    """For the metric auc: the label that is detected. Null with accuracy."""
    jobs: int | None = _between(None, 1)
    """Processes that work side by side. Null: one per core."""


Config = PretrainConfig | FinetuneConfig | StudyConfig
KINDS: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "study": StudyConfig}
