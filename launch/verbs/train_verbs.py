"""`modalgate pretrain`, `finetune`, `study`, `auto` and `demo`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .run_verb import run_verb
from .shared_options import Json, Label

if TYPE_CHECKING:
    from ...shards.index.table import Index
    from ..schema import FinetuneConfig, PretrainConfig

Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A shipped config's name, a YAML file or a run folder.")
]
Start = Annotated[
    str,
    typer.Argument(
        metavar="SHARDS|CONFIG",
        help="Packed shards (all settings are chosen from them), a shipped config, a YAML file or a run folder.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[key=value]...", help="Settings to change, such as data.shards=FOLDER."),
]
Resume = Annotated[
    str,
    typer.Option(
        metavar="[auto]", help="Resume from the newest checkpoint. With `auto`, start if no run exists yet."
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(metavar="KEY", help="Resume with this setting changed. Repeatable."),
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="Repeat results exactly on a GPU too. Slower.")]
Final = Annotated[bool, typer.Option("--final", help="Also train a classifier on all labelled clips, for use.")]
Positive = Annotated[
    str | None,
    typer.Option(metavar="CLASS", help="The class to detect, of two classes.", show_default=False),
]


def pretrain(
    config: Start,
    overrides: Overrides = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    json: Json = None,
) -> None:
    """Train an encoder without labels by pretext tasks."""
    from ..config.choosing import print_choices, start_of
    from ..config.load import load_config
    from ..jobs.first_checks import check_config
    from ..jobs.resuming import command_line, resumed, summed_up
    from ..runs.folder import run_folder
    from ..schema import PretrainConfig

    name, given = start_of(config, overrides)
    settings = load_config("pretrain", name, [*given, *(["train.deterministic=true"] * deterministic)], print_choices)
    assert isinstance(settings, PretrainConfig)
    settings, again = resumed(settings, resume, accept, _pretraining_clips)
    check_config(settings, again)
    from ..jobs.pretraining import pretrain as run_pretraining
    from .training_tables import print_pretrained

    run = run_folder(settings)
    with summed_up(run, settings.train.log_every):
        last = run_pretraining(settings, command_line(), again)
    print_pretrained(run, settings, last, json)


def _pretraining_clips(settings: "PretrainConfig") -> "Index":
    from ..jobs.pretraining import pretraining_clips

    return pretraining_clips(settings.data)


def finetune(
    config: Start,
    overrides: Overrides = None,
    label: Label = None,
    encoder: Annotated[
        str | None,
        typer.Option(metavar="ENCODER", help="Pretrained bundle or run to start from.", show_default=False),
    ] = None,
    positive: Positive = None,
    resume: Resume = "",
    accept: Accept = None,
    deterministic: Deterministic = False,
    final: Final = False,
    json: Json = None,
) -> None:
    """Train a classifier with labels, from an encoder or from scratch."""
    from ..config.choosing import print_choices, start_of
    from ..config.load import load_config
    from ..jobs.first_checks import check_config
    from ..jobs.resuming import command_line, resumed, summed_up
    from ..runs.folder import run_folder
    from ..schema import FinetuneConfig

    name, given = start_of(config, overrides)
    for key, value in (("data.label", label), ("encoder", encoder), ("positive", positive)):
        given += [] if value is None else [f"{key}={value}"]
    given += ["task=violence"] * (positive is not None)
    given += ["train.deterministic=true"] * deterministic + ["final=true"] * final
    settings = load_config("finetune", name, given, print_choices)
    assert isinstance(settings, FinetuneConfig)
    settings, again = resumed(settings, resume, accept, _finetuning_clips)
    check_config(settings, again)
    from ..finetune.finetuning import finetune as run_finetuning
    from .training_tables import print_finetuned

    run = run_folder(settings)
    with summed_up(run, settings.train.log_every):
        done = run_finetuning(settings, command_line(), again)
    print_finetuned(run, done, json)


def _finetuning_clips(settings: "FinetuneConfig") -> "Index":
    from ..finetune.recipe import finetuning_clips

    return finetuning_clips(settings).index


def study(config: Config, overrides: Overrides = None, resume: Resume = "", json: Json = None) -> None:
    """Compare fusions and single modalities over seeds and folds."""
    from ..config.load import load_config
    from ..jobs.first_checks import check_config
    from ..jobs.resuming import command_line, resumed
    from ..runs.folder import run_folder
    from ..schema import StudyConfig

    settings = load_config("study", config, overrides or [])
    assert isinstance(settings, StudyConfig)
    settings, again = resumed(settings, resume, None)
    check_config(settings, again)
    from ..jobs.study_job import study as run_study
    from .training_tables import print_study

    print_study(run_folder(settings), settings, run_study(settings, command_line(), again), json)


def auto(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Your recordings, with or without labels.csv.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder. Default: FOLDER-modalgate.", show_default=False),
    ] = None,
    label: Label = None,
    positive: Positive = None,
    minutes: Annotated[float, typer.Option(min=1, help="Time budget. Trainings are shortened to fit.")] = 20.0,
    preset: Annotated[str, typer.Option(help="Size of the networks: tiny, small or base.")] = "tiny",
    workers: Annotated[int, typer.Option(min=0, help="Processes that decode during training.")] = 1,
    json: Json = None,
) -> None:
    """Run every step on your own folder. Rerun to resume.

    The steps: pack, pretrain, probe, fine-tune, export, report. All settings are chosen from the recordings.
    """
    from ..whole_way.auto import AutoRequest, run_auto

    command = context.find_root().command
    request = AutoRequest(folder, out, label, positive, minutes, preset, workers)
    run_auto(request, lambda words: run_verb(command, words), json)


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new or empty folder.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the corpus and of every training.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier demo, with all that was added to its folder.")
    ] = False,
    json: Json = None,
) -> None:
    """Run every step on a generated corpus, in a few minutes."""
    from ..whole_way.demo import run_demo

    run_demo(out, seed, json, overwrite)
