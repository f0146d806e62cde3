"""Self-supervised pretraining from a config: the run folder ends with an encoder bundle."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate.utils import set_seed

from ..fusion.backbone import Backbone
from ..fusion.bundle import Bundle, count_parameters, save_bundle
from ..shards.errors import RequestError
from ..shards.index import Index, load_index
from ..shards.stream import ClipRequest
from ..shards.transforms import ClipSpec
from ..ssl.objective import PretextObjective
from ..ssl.schedule import Schedule
from ..tasks.results import versions
from ..tasks.split_plan import SplitPlan
from ..tasks.splits import given_split, labelled, take
from .building import (
    check_shards_fit,
    clip_request,
    clip_spec,
    clip_stream,
    config_splits,
    in_steps,
    run_folder,
    select_clips,
)
from .config import settings_of
from .device import ranks
from .run_folder import open_run
from .schema import PretrainConfig
from .train import Evaluation, train


def pretrain(config: PretrainConfig, command: Sequence[str] = (), resume: bool = False) -> dict[str, float | str]:
    """Trains an encoder without labels and saves it as RUN/encoder; returns the last means and what was saved.

    Where `data` divides the clips (folds, groups left out, lists) every split gets an encoder of its own,
    RUN/fold-N/encoder, that has never seen the split's test clips: of its training clips, and of those that have no
    label. Labels do no more than divide. The means are then those of the last split.
    """
    index = select_clips(config.data)
    if config.data.split is not None:
        index = take(index, given_split(index, config.data.split).train)
    run, divided = run_folder(config), _divided(config, index)
    if not divided:
        return _pretrain(config, index, run, command, resume)
    if ranks()[0] == 0:
        open_run(run, settings_of(config, command), resume)
    last: dict[str, float | str] = {}
    for name, clips in divided.items():
        if resume and (run / name / "encoder").is_dir():
            continue
        last = _pretrain(config, clips, run / name, command, resume and (run / name / "config.yaml").is_file())
    return last | {"splits": len(divided)}


def _divided(config: PretrainConfig, index: Index) -> dict[str, Index]:
    """By split, the clips that teach; empty where nothing is divided."""
    data = config.data
    if not (data.folds or data.leave_one_out or data.lists):
        return {}
    known = labelled(index, data.label)[0]
    named = {sample.key for sample in known.samples}
    unlabelled = [sample.key for sample in index.samples if sample.key not in named]
    return {
        split.name: index.keep([*(known.samples[number].key for number in split.train), *unlabelled])
        for split in config_splits(data, known, config.seed)
    }


def _pretrain(
    config: PretrainConfig, index: Index, run: Path, command: Sequence[str], resume: bool
) -> dict[str, float | str]:
    request = clip_request(config.data, index)
    spec = clip_spec(request, index)
    stream = clip_stream(index, request, config.data, config.seed, run)
    config = replace(config, train=in_steps(config.train, len(stream.index.samples), config.data.batch_size))
    set_seed(config.seed)
    backbone = Backbone(request.modalities, config.model)
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
        evaluation=_probe(config, backbone, spec, request),
    )
    if ranks()[0] == 0:
        provenance = {
            "trained": "pretext tasks " + ", ".join(tasks) + " (no labels)",
            "data": f"{index.folder.name}: {len(stream.index.samples)} clips"
            + (f", split {config.data.split}" if config.data.split else "")
            + (f", without the test clips of {run.name}" if run != run_folder(config) else ""),
            "steps": config.train.steps,
            "seed": config.seed,
            "command": " ".join(command),
            "versions": versions(),
        }
        save_bundle(Bundle(backbone, spec, request.segments, provenance=provenance), run / "encoder")
    return last | {"parameters": count_parameters(backbone), "clips": len(stream.index.samples)}


def _probe(config: PretrainConfig, backbone: Backbone, spec: ClipSpec, request: ClipRequest) -> Evaluation | None:
    """The online probe, where the config has one. Every process measures it: few clips, and no gathering."""
    probe = config.probe
    if probe is None:
        return None
    from ..tasks.online_probe import OnlineProbe  # its metrics take seconds to import

    index = load_index(probe.shards or config.data.shards)
    check_shards_fit(Bundle(backbone, spec, request.segments), index)
    measure = OnlineProbe(
        backbone,
        spec,
        index,
        request,
        config.data.batch_size,
        config.data.workers,
        probe.label,
        SplitPlan(probe.folds, group=probe.group, train=probe.train, test=probe.test, seed=config.seed),
        probe.neighbours,
    )
    return Evaluation(measure, probe.every)
