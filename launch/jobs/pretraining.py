"""Self-supervised pretraining from a config: the run folder ends with an encoder bundle."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate.utils import set_seed

from ...fusion.backbone import Backbone
from ...fusion.blank_segment import check_windows
from ...fusion.bundle.bundle import Bundle, count_parameters, load_bundle, save_bundle
from ...fusion.spec import own_packages
from ...shards.clip_spec import ClipSpec
from ...shards.errors import RequestError
from ...shards.index.selection import fraction_of
from ...shards.index.table import Index, load_index
from ...shards.stream import ClipRequest
from ...ssl.objective import PretextObjective
from ...ssl.schedule import Schedule
from ...tasks.records import versions
from ...tasks.splits.split_plan import SplitPlan
from ...tasks.splits.splits import given_split, groups_of, labelled, take
from ..config.load import settings_of
from ..runs.bundles import UNSEEN, tested_digest
from ..runs.folder import open_run, run_folder
from ..schema import DataConfig, PretrainConfig
from ..training.device import ranks
from ..training.loop import Evaluation, train
from ..training.pace import seconds_per_step
from .adapting import adapt
from .building import (
    application_of,
    check_shards_fit,
    clip_request,
    clip_stream,
    config_splits,
    held_request,
    in_steps,
    select_clips,
)


def pretrain(config: PretrainConfig, command: Sequence[str] = (), resume: bool = False) -> dict[str, float | str]:
    """Trains an encoder without labels and saves it as RUN/encoder; returns the last means and what was saved.

    Where `data` divides the clips (folds, groups left out, lists) every split gets an encoder of its own,
    RUN/SPLIT/encoder, which has seen neither the split's test clips nor, unless `leaky`, unlabelled clips of their
    groups: it learns from the training clips and from all others without a label. Labels do no more than divide. The
    means are then those of the last split.
    """
    index, data = pretraining_clips(config.data), config.data
    config = adapt(config, index, command)
    run = run_folder(config)
    if not divides(data):
        return _pretrain(config, index, run, {}, command, resume)
    divided = _divided(config, index)
    clips, _ = next(iter(divided.values()))
    # A config that does not suit the clips is refused before its name is taken.
    _build(config, clips)
    if ranks()[0] == 0:
        open_run(run, settings_of(config, command), resume)
    last: dict[str, float | str] = {}
    for name, (clips, unseen) in divided.items():
        place = run / name
        steps = _steps(config, clips).train.steps
        done = resume and (place / "encoder").is_dir()
        if not done or load_bundle(place / "encoder", own_packages(config.model)).provenance.get("steps") != steps:
            again = resume and (place / "config.yaml").is_file()
            last = _pretrain(config, clips, place, {UNSEEN: unseen}, command, again)
    return last | {"splits": len(divided)}


def pretraining_pace(config: PretrainConfig) -> float:
    """Seconds per step of a pretraining by `config`, measured on its clips."""
    index = pretraining_clips(config.data)
    config = adapt(config, index)
    request, objective, _ = _build(config, index)
    return seconds_per_step(objective, clip_stream(index, request, config.data, config.seed, run_folder(config)))


def divides(data: DataConfig) -> bool:
    """Whether `data` divides the clips into splits."""
    return bool(data.folds or data.leave_one_out or data.lists)


def pretraining_clips(data: DataConfig) -> Index:
    """The clips that a pretraining learns from, before they are divided."""
    index = select_clips(data)
    if divides(data) or data.split is None:
        return index
    return take(index, given_split(index, data.split).train)


def _divided(config: PretrainConfig, index: Index) -> dict[str, tuple[Index, str]]:
    """By split, the clips that teach, and the digest of those that are kept from it."""
    data = config.data
    known = labelled(index, data.label)[0]
    named = {sample.key for sample in known.samples}
    bare = index.keep(sample.key for sample in index.samples if sample.key not in named)
    divided: dict[str, tuple[Index, str]] = {}
    for split in config_splits(data, known, config.seed):
        if split.name in divided:
            raise RequestError(f"two splits are named '{split.name}': give their lists names that differ")
        tested = set() if data.leaky else set(groups_of(take(known, split.test), data.group) or ())
        groups = groups_of(bare, data.group) or [""] * len(bare.samples)
        spare = [s.key for s, group in zip(bare.samples, groups, strict=True) if not group or group not in tested]
        keys = [*(known.samples[number].key for number in split.train), *spare]
        divided[split.name] = index.keep(keys), tested_digest(known, split)
    return divided


def _steps(config: PretrainConfig, index: Index) -> PretrainConfig:
    """The config with the steps that its epochs of these clips come to."""
    count = len(fraction_of(index, config.data.fraction).samples)
    return replace(config, train=in_steps(config.train, count, config.data.batch_size))


def _build(config: PretrainConfig, index: Index) -> tuple[ClipRequest, PretextObjective, Evaluation | None]:
    """What is cut from the clips, the untrained objective, and the online probe where the config has one."""
    config, request = _steps(config, index), clip_request(config.data, index)
    spec = ClipSpec.of(index, request)
    set_seed(config.seed)
    backbone = Backbone(request.modalities, config.model, clip=spec)
    check_windows(backbone, spec)
    tasks = {name: (task.weight, task.arguments) for name, task in config.tasks.items()}
    schedules = {name: Schedule(task.begin, task.end, task.ramp) for name, task in config.tasks.items()}
    batches = config.train.steps * config.train.accumulate
    objective = PretextObjective(backbone, spec, request.segments, tasks, config.augment, batches, schedules)
    compared = [name for name, task in objective.tasks.items() if task.across_clips]
    if config.train.accumulate > 1 and compared:
        raise RequestError(
            f"train.accumulate {config.train.accumulate} would cut the batch that task '{compared[0]}' compares "
            "clips of: set it to 1 and use a larger data.batch_size, or more processes"
        )
    return request, objective, _probe(config, backbone, spec, request)


def _pretrain(
    config: PretrainConfig, index: Index, run: Path, told: dict[str, str], command: Sequence[str], resume: bool
) -> dict[str, float | str]:
    """One encoder; `told`: what its bundle is to say of it besides."""
    request, objective, probe = _build(config, index)
    config = _steps(config, index)
    stream = clip_stream(index, request, config.data, config.seed, run)
    last = train(
        objective,
        stream,
        config.train,
        run,
        seed=config.seed,
        resume=resume,
        tracker_mode=config.wandb,
        tensorboard=config.tensorboard,
        settings=settings_of(config, command),
        evaluation=probe,
    )
    if ranks()[0] == 0:
        split = f", without the test clips of {run.name}" if told else ""
        split = f", split {config.data.split}" if config.data.split and not told else split
        provenance = {
            "trained": f"pretext tasks {', '.join(config.tasks)} (no labels)",
            "data": f"{index.folder.name}: {len(stream.index.samples)} clips{split}",
            "steps": config.train.steps,
            "seed": config.seed,
            "command": " ".join(command),
            "versions": versions(),
        }
        application = application_of(request, index)
        bundle = Bundle(
            objective.backbone,
            ClipSpec.of(index, request),
            request.segments,
            provenance=provenance | told,
            application=application,
        )
        save_bundle(bundle, run / "encoder")
    return last | {"parameters": count_parameters(objective.backbone), "clips": len(stream.index.samples)}


def _probe(config: PretrainConfig, backbone: Backbone, spec: ClipSpec, request: ClipRequest) -> Evaluation | None:
    """The online probe, where the config has one. Every process measures it: few clips, and no gathering."""
    probe = config.probe
    if probe is None:
        return None
    from ...tasks.probes.online_probe import OnlineProbe  # its metrics take seconds to import

    index = load_index(probe.shards or config.data.shards)
    check_shards_fit(Bundle(backbone, spec, request.segments), index)
    measure = OnlineProbe(
        backbone,
        spec,
        index,
        held_request(request, index),
        config.data.batch_size,
        config.data.workers,
        probe.label,
        SplitPlan(probe.folds, group=probe.group, train=probe.train, test=probe.test, seed=config.seed),
        probe.neighbours,
    )
    return Evaluation(measure, probe.every)
