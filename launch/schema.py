"""The types of every config: its keys, their defaults and their valid values."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from ..fusion.spec import BackboneSpec
from ..shards.clips.augment import AugmentConfig
from ..tasks.finetuning.balance.aids import AidsConfig


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
    declare: list[str] = field(default_factory=list)
    """Modalities that are not built in, such as [thermal=video,mic2=audio,radar=signal:2@20]. Not needed for shards
    that were packed with them."""
    segments: int = _between(3, 1)
    """Windows cut from each clip. Evaluation averages over the same number."""
    seconds: float | None = _between(None, 0.01)
    """Length of a window in seconds. Null: that of the encoder a training starts from, else 1."""
    frames: int | None = _between(None, 1)
    """Video frames in each window, evenly spaced. Null: those of the encoder a training starts from, else 8."""
    stretch: float | None = _between(None, 0, 1)
    """Share of the clip that a window covers. The window is resampled to `seconds`; sound is not. 0: normal speed.
    Null: that of the encoder a training starts from, else 0."""
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
    """Whether a group may be in several folds. This inflates scores."""
    leave_one_out: bool = False
    """Whether to make one fold for every value of `group`."""
    lists: list[str] = field(default_factory=list)
    """Files of official splits, in pairs of training list and test list. Empty: none."""
    where: dict[str, list[str]] = field(default_factory=dict)
    """Use only clips with these values of other columns, such as `where.camera=cam0`; a value or a list of values."""
    present: list[str] = field(default_factory=list)
    """Use only clips that have all these modalities. Empty: every clip."""
    classes: list[str] = field(default_factory=list)
    """Use only clips with these values of `label`. Empty: every value."""
    fraction: float = _between(1.0, 0.0001, 1)
    """Share of the training clips to use."""
    max_damaged: float = _between(0.05, 0, 1)
    """Share of undecodable clips above which training ends with an error."""


@dataclass
class TaskConfig:
    """One pretext task of the mixture."""

    weight: float = _between(1.0, 0)
    """Factor on the task's loss in the sum of losses."""
    begin: float = _between(0.0, 0, 1)
    """Share of the run at which the task starts. 0: at the first step."""
    end: float = _between(1.0, 0, 1)
    """Share of the run at which the task ends. 1: after the last step."""
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
    """Passes over the training clips, instead of `steps`. Null: `steps` counts."""
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
    """Number format of the forward pass. auto: fp32 on a CPU, on a GPU bf16, or fp16 if it lacks bf16."""
    strategy: str = _one_of("ddp", "fsdp")
    """How several processes share the model. ddp: each holds the whole model; fsdp: each holds a part of the
    weights and of the optimiser state."""
    compile: bool = False
    """Whether torch.compile compiles the encoders. The first steps then take a minute or more."""
    log_every: int = _between(10, 1)
    """Steps between two lines of the log."""
    checkpoint_every: int = _between(200, 1)
    """Steps between two checkpoints."""
    checkpoint_minutes: float = _between(30.0, 0)
    """Longest time between two checkpoints, in minutes."""
    keep: int = _between(2, 1)
    """Number of newest checkpoints to keep."""
    best: str | None = "loss"
    """Logged metric whose best checkpoint is also kept; lower is better if its name ends in `loss`. Null: only the
    newest are kept."""
    nonfinite_limit: int = _between(10, 1)
    """Number of steps in a row with a non-finite loss or gradient after which the run stops with an error."""
    hang_minutes: float = _between(10.0, 0.01)
    """Minutes one of several processes may make no progress. Then all stop, and an error names that process."""
    deterministic: bool = False
    """Whether to use only algorithms that give the same result every time. GPU operations without one raise an
    error."""
    threads: int | None = _between(None, 1)
    """Threads of torch on the CPU. Null: all cores that decoding processes do not use."""


@dataclass
class ExpertsConfig(TrainConfig):
    """The training loop of a study's experts, one per modality."""

    cross_fit: int = _between(5, 0)
    """Folds of the training clips, by `data.group`. For each fold one more expert trains on the other folds; its
    scores of the fold train the gates. 0: none. Not used with `expert_split`."""


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

    If `data` divides the clips by folds, groups or lists, each split gets its own encoder, which has not seen its
    test clips.
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
    encoder: str | None = None
    """Bundle or run whose encoders and fusion the training starts from, on these or other clips, with a new schedule.
    Null: `model` starts from random or published weights."""
    model: BackboneSpec = field(default_factory=BackboneSpec)
    """Encoders by modality, and the fusion over them, used if `encoder` is null."""
    tasks: dict[str, TaskConfig] = field(default_factory=dict)
    """Pretext tasks by name, or your own classes, `package.module:Class`. Their weighted losses are summed."""
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
    """For the task violence: the label to detect. Null in the other tasks."""
    head_learning_rate: float = _between(10.0, 0)
    """Factor on `train.learning_rate` for the classifier heads."""
    encoder_learning_rate: float = _between(1.0, 0)
    """Factor on `train.learning_rate` for the encoders and the fusion. 0: they do not train."""
    dropout: float = _between(0.2, 0, 1)
    """Share of features set to 0 before the classifier head."""
    unimodal_weight: float = _between(0.0, 0)
    """Weight of the losses of one auxiliary head per modality. 0: no heads per modality."""
    decision: str | None = None
    """Fusion of class scores of one head per modality: a name, or your own class, `package.module:Class`. Null: one
    head on the fused embedding."""
    cross_fit: int = _between(0, 0)
    """Folds of the training clips, by `data.group`. For each fold one more classifier trains on the other folds; its
    scores of the fold fit the decision `reliability`. 0: none."""
    joint: float = _between(0.0, 0, 1)
    """Share of `train.steps` that then trains the decision `reliability` together with its experts, at a tenth of the
    rate and near the experts' features (UMT). 0: none."""
    balanced: bool = False
    """Whether all classes have the same weight in the loss, regardless of their counts."""
    aids: AidsConfig = field(default_factory=AidsConfig)
    """Remedies for modalities that compete in training."""
    layer_decay: float = _between(1.0, 0.01, 1)
    """Factor on the learning rate for each layer below an encoder's top. 1: all layers train at one rate."""
    heads_first: float = _between(0.0, 0, 1)
    """Share of the steps in which only the heads train. 0: all weights train from the first step."""
    unfrozen_by: float = _between(0.0, 0, 1)
    """Share of the steps after which the lowest layer starts to train. Layers start from the top down. 0: all start
    together."""
    hold_out: bool = False
    """Whether validation clips, or a fifth of the training groups, are held out of training to choose threshold and
    temperature."""
    evaluate_every: int = _between(0, 0)
    """Steps between two scorings of the validation clips; the best state is kept. 0: no scoring during training."""
    patience: int = _between(0, 0)
    """Scorings in a row without improvement after which training stops. 0: it runs to its last step."""
    final: bool = False
    """Whether to train one more classifier on the clips of all splits, with the same settings; its threshold and
    temperature are fitted on their test scores."""
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
    """Fusion mechanism: a name, or your own class, `package.module:Class`."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The mechanism's own arguments. Empty: its defaults."""
    aids: AidsConfig = field(default_factory=AidsConfig)
    """Remedies for modalities that compete in training."""
    joint: bool = False
    """Whether encoders and fusion train together, for as many steps as the experts. False: only the fusion trains, on
    features of the experts."""
    alone: str | None = None
    """Control of size: the row uses this modality alone, with a hidden layer so wide that the row has as many
    parameters as all encoders with `fusion`. Null: the row fuses all modalities."""


@dataclass
class StudyConfig:
    """Comparison of fusion mechanisms on one set: same encoders, same budget, paired by clip and seed.

    Each modality's encoder is trained alone with labels (`experts`). Then every row, and each single modality, is
    trained on the stored features (`fusion`).
    """

    name: str = "study"
    """Name of the run."""
    out: str = "runs"
    """Folder of all runs. The run is written to `out`/`name`."""
    seed: int = _between(0, 0)
    """First seed. Further runs use the next numbers."""
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
    """Bundle or pretraining run to start from; its networks must be those of `model`. Null: random weights."""
    expert_split: str | None = None
    """Value of the column `split` whose clips train the encoders. Null: the same clips as the rows."""
    validation_group: str | None = None
    """Column whose clips stay together when validation clips are taken from the training clips. Null:
    `data.group`."""
    taught_noise: float = _between(0.0, 0, 1)
    """Share of a row's training clips in which one modality gets noise, at a level of `noise`. 0: clean clips."""
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    """The training loop of the encoders."""
    fusion: TrainConfig = field(default_factory=TrainConfig)
    """The training loop of the rows."""
    fusion_batch_size: int = _between(64, 2)
    """Clips in a batch of a row."""
    unimodal_weight: float = _between(0.3, 0)
    """Weight of the losses of one head per modality while a row trains. 0: no heads per modality."""
    noise: list[float] = field(default_factory=lambda: [0.5, 1.0, 2.0])
    """Levels of noise at which every row is tested, in standard deviations. Empty: no noise curve."""
    held_out: dict[str, float] = field(default_factory=dict)
    """Corruptions that no training contains, level by axis, on one modality at a time, such as {drop: 0.8}; axes as
    in `robustness`. Empty: none."""
    metric: str = _one_of("accuracy", "auc")
    """Metric by which rows are compared."""
    positive: str | None = None
    """For the metric auc: the label to detect. Null with accuracy."""
    jobs: int | None = _between(None, 1)
    """Processes that work in parallel. Null: one per core."""


Config = PretrainConfig | FinetuneConfig | StudyConfig
KINDS: dict[str, type[Config]] = {"pretrain": PretrainConfig, "finetune": FinetuneConfig, "study": StudyConfig}
