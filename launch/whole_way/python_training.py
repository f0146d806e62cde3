"""`pretrain` and `finetune` as Python functions.

Names and arguments are those of the command line. The functions return what the commands print. An invalid request
raises `RequestError`, bad data raises `DataError`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...fusion.own_classes import allowing
from ...shards.errors import RequestError
from ...shards.media.credentials import masked
from ..jobs.first_checks import check_config

if TYPE_CHECKING:
    from ...tasks.evaluation.scores import Scores
    from ...tasks.evaluation.validation_choices import Calibration
    from ...tasks.records import Result
    from ..config.defaults import Choice

Place = str | Path
Settings = Sequence[str] | Mapping[str, Any]


@dataclass(frozen=True)
class Pretrained:
    """A finished pretraining.

    run: folder of the run.
    encoders: bundles of the encoders: one, or one per split.
    figures: means of the last logged steps, by name.
    chosen: settings that were chosen from the shards.
    warnings: of the whole run.
    """

    run: Path
    encoders: list[Path]
    figures: dict[str, float | str]
    chosen: "list[Choice]"
    warnings: list[str]


@dataclass(frozen=True)
class Finetuned:
    """A finished fine-tuning.

    run: folder of the run.
    classifier: the bundle to use: the final model if there is one, else that of the first split.
    metrics: over all test clips, pooled over folds.
    intervals: 95 % intervals of the metrics, resampled by group.
    chances: metrics of guessing.
    scores: class scores of every test clip.
    result: the record of the run, with its tables.
    calibration: of the final model; None without a final model.
    chosen: settings that were chosen from the shards.
    warnings: of the whole run.
    """

    run: Path
    classifier: Path
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    chances: dict[str, float]
    scores: "Scores"
    result: "Result"
    calibration: "Calibration | None"
    chosen: "list[Choice]"
    warnings: list[str]


def pretrain(
    config: Place = "",
    overrides: Settings = (),
    *,
    resume: bool | Literal["auto"] = False,
    accept: Sequence[str] = (),
    deterministic: bool = False,
    shards_or_config: Place = "",
    settings: Settings = (),
) -> Pretrained:
    """Trains an encoder without labels, on pretext tasks.

    config: packed shards, from which all settings are chosen; or a shipped config, a YAML file or a run folder.
    overrides: settings to change, as `["train.steps=100"]` or `{"train.steps": 100}`. Keys are dotted, as on the
        command line.
    resume: resume from the newest checkpoint of the run; `"auto"` starts the run if it does not exist.
    accept: settings that may differ on resume.
    deterministic: reproducible results on a GPU too, at some cost in speed.
    shards_or_config, settings: other names of `config` and `overrides`.

    Raises `RequestError` for invalid settings.
    """
    from ...tasks.report.provenance import read_warnings
    from ..config.choosing import start_of
    from ..config.load import load_config
    from ..jobs.pretraining import pretrain as run_pretraining
    from ..jobs.pretraining import pretraining_clips
    from ..jobs.resuming import resumed
    from ..runs.folder import run_folder
    from ..schema import PretrainConfig

    start, given = _start(config, shards_or_config), [*as_overrides(overrides), *as_overrides(settings)]
    given += ["train.deterministic=true"] * deterministic
    name, overrides = start_of(str(start), given)
    chosen: list[Choice] = []
    wanted = load_config("pretrain", name, overrides, chosen.extend)
    assert isinstance(wanted, PretrainConfig)
    wanted, again = resumed(wanted, resume_word(resume), list(accept), lambda one: pretraining_clips(one.data))
    run = run_folder(wanted)
    check_config(wanted, again)
    last = run_pretraining(wanted, command_of("pretrain", start, given), again)
    whole = run / "encoder"
    encoders = [whole] if whole.is_dir() else sorted(run.glob("*/encoder"))
    return Pretrained(run, encoders, last, chosen, read_warnings(run))


def finetune(
    config: Place = "",
    overrides: Settings = (),
    *,
    label: str | None = None,
    encoder: Place | None = None,
    positive: str | None = None,
    resume: bool | Literal["auto"] = False,
    accept: Sequence[str] = (),
    deterministic: bool = False,
    final: bool = False,
    allow: Sequence[str] = (),
    shards_or_config: Place = "",
    settings: Settings = (),
) -> Finetuned:
    """Trains a classifier with labels, from a pretrained encoder or from scratch, and scores it on test clips.

    config, overrides, resume, accept, deterministic, shards_or_config, settings: as in `pretrain`.
    label: column of classes; default: `label` if it exists.
    encoder: pretrained bundle or run to start from; default: from scratch.
    positive: the class to detect, out of two classes; sets the task `violence`.
    final: also train a final classifier on all labelled clips, for use.
    allow: packages whose classes the encoder's bundle may import.

    Raises `RequestError` for invalid settings.
    """
    from ...tasks.report.provenance import read_warnings
    from ..config.choosing import start_of
    from ..config.load import load_config
    from ..finetune.finetuning import finetune as run_finetuning
    from ..finetune.recipe import finetuning_clips
    from ..jobs.resuming import resumed
    from ..runs.bundles import find_bundle
    from ..runs.folder import run_folder
    from ..schema import FinetuneConfig

    start, given = _start(config, shards_or_config), [*as_overrides(overrides), *as_overrides(settings)]
    for key, value in (("data.label", label), ("encoder", encoder), ("positive", positive)):
        given += [] if value is None else [f"{key}={value}"]
    given += ["task=violence"] * (positive is not None)
    given += ["train.deterministic=true"] * deterministic + ["final=true"] * final
    name, overrides = start_of(str(start), given)
    chosen: list[Choice] = []
    wanted = load_config("finetune", name, overrides, chosen.extend)
    assert isinstance(wanted, FinetuneConfig)
    wanted, again = resumed(wanted, resume_word(resume), list(accept), lambda one: finetuning_clips(one).index)
    run = run_folder(wanted)
    check_config(wanted, again)
    with allowing(allow):
        done = run_finetuning(wanted, command_of("finetune", start, given), again)
    return Finetuned(
        run,
        find_bundle(run, quiet=True),
        done.metrics,
        done.intervals,
        done.chances,
        done.scores,
        done.result,
        done.calibration,
        chosen,
        [*read_warnings(run), *done.result.warnings],
    )


def _start(config: Place, shards_or_config: Place) -> Place:
    """The one that is given. Raises `RequestError` for none or both."""
    if bool(str(config)) == bool(str(shards_or_config)):
        raise RequestError("give one `config`: shards, a shipped config, a YAML file or a run folder")
    return config if str(config) else shards_or_config


def as_overrides(settings: Settings) -> list[str]:
    """Settings in the form `key=value` of the command line."""
    if isinstance(settings, str):
        raise RequestError(f"overrides must be a list or a mapping, not the text '{settings}': give [{settings!r}]")
    if not isinstance(settings, Mapping):
        return list(settings)
    return [f"{key}={_as_text(value)}" for key, value in settings.items()]


def _as_text(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value, default=str)


def command_of(verb: str, start: Place, given: Sequence[str]) -> list[str]:
    """The equivalent command line, for the record of the run."""
    return ["modalgate", verb, masked(str(start)), *map(masked, given)]


def resume_word(resume: bool | str) -> str:
    """The value of `--resume`."""
    return resume if isinstance(resume, str) else "yes" * resume
