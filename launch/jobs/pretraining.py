"""Self-supervised pretraining from a config: the run folder ends with an encoder bundle."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from ..runs.bundles import SEEN, UNSEEN, measured_bundle, tested_digest, unseen_bundle
from ..runs.folder import run_folder
from ..schema import DataConfig, PretrainConfig
from ..training.checkpoint import steps_done
from ..training.device import ranks
from ..training.loop import Evaluation, train
from ..training.set_up import open_parts
from .adapting import adapt, adapt_modalities
from .building import (
    application_of,
    check_shards_fit,
    clip_request,
    clip_stream,
    config_splits,
    held_request,
    in_steps,
    request_from,
    select_clips,
    spec_for,
)
from .pace import seconds_per_step


@dataclass(frozen=True)
class _Plan:
    """One resolved pretraining: its config with a number of steps, its clips, its folder `run`, what to cut from
    each clip and how to prepare it; `about`: facts for the bundle's provenance; `start`: the bundle it starts from.
    """

    config: PretrainConfig
    index: Index
    run: Path
    request: ClipRequest
    spec: ClipSpec
    about: dict[str, str]
    start: Bundle | None = None


def pretrain(config: PretrainConfig, command: Sequence[str] = (), resume: bool = False) -> dict[str, float | str]:
    """Trains an encoder without labels and saves it as RUN/encoder; returns the last means and sizes.

    If `data` divides the clips (folds, groups, lists), every split gets its own encoder, RUN/SPLIT/encoder. It trains
    on the split's training clips and on unlabelled clips, but not on the split's test clips nor, unless `leaky`, on
    unlabelled clips of their groups. Labels only divide the clips. The returned means are those of the last split.

    With `config.encoder` the training starts from that bundle's encoders and fusion, and clips are prepared as for
    it; of a run with one encoder per split, each split starts from its own.
    """
    data = config.data
    index = pretraining_clips(data)
    config = adapt(config, index, command)
    run = run_folder(config)
    if not divides(data):
        return _pretrain(_resolved(config, index, run), command, resume)
    plans = _plans(config, index, run)
    # Fails before the run folder is made if the config does not suit the clips.
    _objective(plans[0])
    settings = settings_of(config, command) | {"fingerprint": index.fingerprint}
    last: dict[str, float | str] = {}
    with open_parts(run, settings, resume, config.train):
        for plan in plans:
            bundle, allowed = plan.run / "encoder", own_packages(config.model)
            done = resume and bundle.is_dir()
            if not done or load_bundle(bundle, allowed).provenance.get("steps") != plan.config.train.steps:
                again = resume and (plan.run / "config.yaml").is_file()
                last = _pretrain(plan, command, again)
    return last | {"splits": len(plans)}


def check_pretraining(config: PretrainConfig) -> None:
    """Raises what a pretraining by `config` raises before its first step; nothing is written."""
    index = pretraining_clips(config.data)
    config, _ = adapt_modalities(config, index)
    run = run_folder(config)
    plans = _plans(config, index, run) if divides(config.data) else [_resolved(config, index, run)]
    for plan in plans:
        clip_stream(plan.index, plan.request, config.data, config.seed, plan.run)
    _objective(plans[0])


def pretraining_pace(config: PretrainConfig) -> float:
    """Seconds per step of a pretraining by `config`, measured on its clips."""
    index = pretraining_clips(config.data)
    plan = _resolved(adapt(config, index), index, run_folder(config))
    objective, _ = _objective(plan)
    return seconds_per_step(objective, clip_stream(index, plan.request, plan.config.data, config.seed, plan.run))


def divides(data: DataConfig) -> bool:
    """Whether `data` divides the clips into splits."""
    return bool(data.folds or data.leave_one_out or data.lists)


def pretraining_clips(data: DataConfig) -> Index:
    """The clips for pretraining, before they are divided into splits."""
    index = select_clips(data)
    if divides(data) or data.split is None:
        return index
    return take(index, given_split(index, data.split).train)


def _plans(config: PretrainConfig, index: Index, run: Path) -> list[_Plan]:
    """The pretraining of every split."""
    return [_resolved(config, clips, run / name, unseen) for name, (clips, unseen) in _divided(config, index).items()]


def _divided(config: PretrainConfig, index: Index) -> dict[str, tuple[Index, str]]:
    """By split, the clips to train on, and the digest of the clips that are kept out."""
    data = config.data
    known = labelled(index, data.label)[0]
    named = {sample.key for sample in known.samples}
    bare = index.keep(sample.key for sample in index.samples if sample.key not in named)
    divided: dict[str, tuple[Index, str]] = {}
    for split in config_splits(data, known, config.seed):
        if split.name in divided:
            raise RequestError(f"two splits are named '{split.name}': rename one of their lists")
        tested = set() if data.leaky else set(groups_of(take(known, split.test), data.group) or ())
        groups = groups_of(bare, data.group) or [""] * len(bare.samples)
        spare = [s.key for s, group in zip(bare.samples, groups, strict=True) if not group or group not in tested]
        keys = [*(known.samples[number].key for number in split.train), *spare]
        divided[split.name] = index.keep(keys), tested_digest(known, split)
    return divided


def _resolved(config: PretrainConfig, index: Index, run: Path, unseen: str = "") -> _Plan:
    """The resolved pretraining of `config` on the clips of `index`; its epochs become steps.

    `unseen`: digest of the clips that are kept out, of a split.
    """
    count = len(fraction_of(index, config.data.fraction).samples)
    config = replace(config, train=in_steps(config.train, count, config.data.batch_size))
    about = {UNSEEN: unseen} if unseen else {}
    if not config.encoder:
        request = clip_request(config.data, index)
        return _Plan(config, index, run, request, ClipSpec.of(index, request), about)
    place = Path(config.encoder)
    start = unseen_bundle(place, index, run.name, unseen) if unseen else measured_bundle(place, index)
    check_shards_fit(start, index)
    request = request_from(start, config.data)
    spec = replace(spec_for(start.spec, request), packing=index.settings)
    return _Plan(config, index, run, request, spec, about | _origin(place, start), start)


def _origin(place: Path, start: Bundle) -> dict[str, str]:
    """Provenance of the bundle that a pretraining starts from, for the card of the new one."""
    made = start.provenance
    facts = [str(made[name]) for name in ("trained", "data") if name in made]
    facts += [f"{made['steps']} steps"] if "steps" in made else []
    seen = {SEEN: made[SEEN]} if SEEN in made else {}
    name = place.parent.name if place.name == "encoder" else place.name
    return {"encoder": f"started from '{name}' ({'; '.join(facts) or 'of unknown origin'})"} | seen


def _objective(plan: _Plan) -> tuple[PretextObjective, Evaluation | None]:
    """The untrained objective, and the online probe if the config has one."""
    config, request, spec = plan.config, plan.request, plan.spec
    set_seed(config.seed)
    if plan.start is None:
        backbone = Backbone(request.modalities, config.model, clip=spec)
    else:
        backbone = copy.deepcopy(plan.start.backbone).train()
        backbone.prepare_as(spec)
    check_windows(backbone, spec)
    tasks = {name: (task.weight, task.arguments) for name, task in config.tasks.items()}
    schedules = {name: Schedule(task.begin, task.end, task.ramp) for name, task in config.tasks.items()}
    batches = config.train.steps * config.train.accumulate
    objective = PretextObjective(backbone, spec, request.segments, tasks, config.augment, batches, schedules)
    compared = [name for name, task in objective.tasks.items() if task.across_clips]
    if config.train.accumulate > 1 and compared:
        raise RequestError(
            f"train.accumulate {config.train.accumulate} splits the batch in which task '{compared[0]}' compares "
            "clips: set it to 1 and use a larger data.batch_size, or more processes"
        )
    return objective, _probe(plan, backbone)


def _pretrain(plan: _Plan, command: Sequence[str], resume: bool) -> dict[str, float | str]:
    """Trains one encoder and saves it as RUN/encoder; returns the last means, and counts of parameters and clips."""
    config, index, run = plan.config, plan.index, plan.run
    objective, probe = _objective(plan)
    stream = clip_stream(index, plan.request, config.data, config.seed, run)
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
        split = f", without the test clips of {run.name}" if UNSEEN in plan.about else ""
        split = f", split {config.data.split}" if config.data.split and UNSEEN not in plan.about else split
        provenance = {
            "trained": f"pretext tasks {', '.join(config.tasks)} (no labels)",
            "data": f"{index.folder.name}: {len(stream.index.samples)} clips{split}",
            "steps": max(config.train.steps, steps_done(run)),
            "seed": config.seed,
            "command": " ".join(command),
            "versions": versions(),
        }
        bundle = Bundle(
            objective.backbone,
            plan.spec,
            plan.request.segments,
            provenance=provenance | plan.about,
            application=application_of(plan.request, index),
        )
        save_bundle(bundle, run / "encoder")
    return last | {"parameters": count_parameters(objective.backbone), "clips": len(stream.index.samples)}


def _probe(plan: _Plan, backbone: Backbone) -> Evaluation | None:
    """The online probe, if the config has one. Every process measures it: few clips, and no gathering."""
    config, request, spec, probe = plan.config, plan.request, plan.spec, plan.config.probe
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
