"""`export`, `robustness`, `compare`, `detect`, `study` and `report` as Python functions.

Names and arguments are those of the command line. The functions return what the commands print. An invalid request
raises `RequestError`, bad data raises `DataError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...fusion.own_classes import allowing
from ..jobs.first_checks import (
    check_bundle,
    check_config,
    check_export,
    check_recordings,
    check_shards,
    check_trained,
)
from .python_training import Settings, as_overrides, command_of, resume_word

if TYPE_CHECKING:
    from ...tasks.evaluation.run_comparison import Duel
    from ...tasks.metrics.detection import ScoredVideo
    from ...tasks.records import Result
    from ..export.export_job import Written
    from ..jobs.robustness import Measured
    from ..jobs.study_job import Studied

Place = str | Path


@dataclass(frozen=True)
class Compared:
    """Paired tests between runs.

    pairs: differences, p values and adjusted p values of every pair.
    result: the record, with its tables and warnings.
    """

    pairs: "list[Duel]"
    result: "Result"


@dataclass(frozen=True)
class Detected:
    """Events found in untrimmed recordings.

    videos: window scores and true events of each recording.
    result: the record, with its tables and warnings.
    """

    videos: "list[ScoredVideo]"
    result: "Result"


@dataclass(frozen=True)
class Reported:
    """A written report; `page`: its HTML file."""

    page: Path


def export(
    run: Place,
    out: Place,
    *,
    format: Literal["bundle", "onnx", "torch"] = "bundle",
    encoder_only: bool = False,
    shards: Place | None = None,
    label: str | None = None,
    int8: bool = False,
    modality: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
    allow: Sequence[str] = (),
) -> "Written":
    """Writes a run's model as a bundle, a graph or one network.

    run: a run folder of `pretrain` or `finetune`, or a bundle.
    out: a new folder; for other forms a .onnx, .pt2 or .safetensors file.
    format: `bundle`, `onnx`, or `torch` (torch.export).
    encoder_only: write only the encoder of a classifier, as a graph.
    shards: compare the graph with the model on these clips.
    label: label column of `shards`, for the accuracy of int8; default: `label`.
    int8: with `onnx`, also write a quantised graph and measure its cost.
    modality: write only this modality's network, for timm or torchvision.
    license: for the model card, such as CC-BY-4.0.
    overwrite: replace what is there.
    allow: packages whose classes the bundle may import.

    Raises `RequestError` for options that do not go together, and `DataError` for a graph that differs from the
    model.
    """
    form, run, out, shards = format, Path(run), Path(out), None if shards is None else Path(shards)
    check_export(form, modality, int8, encoder_only, shards, label, license)
    check_trained(run)
    if shards is not None:
        check_shards(shards)
    from ..export.export_job import GraphRequest, check_free, export_model

    graph = form != "bundle"
    check_free(out, graph, int8, overwrite)
    request = GraphRequest(form, encoder_only, int8, shards, label) if graph else None
    with allowing(allow):
        return export_model(run, out, request, modality, license)


def robustness(
    model: Place,
    shards: Place | Sequence[Place],
    *,
    split: str | None = None,
    axis: Sequence[str] = (),
    label: str = "label",
    folds: int | None = None,
    group: str = "group",
    train_split: str = "train",
    views: int | None = None,
    batch_size: int = 32,
    workers: int = 1,
    seed: int = 0,
    allow: Sequence[str] = (),
) -> "Measured":
    """Scores test clips with missing, noisy, late, blurred or swapped modalities.

    model: a fine-tuning run, a classifier, or an encoder to probe.
    shards: one or more shard folders with labelled clips.
    split: value of `split` to score, or `all`; default: the run's own test clips, else `test`.
    axis: only these corruptions, such as `["blur"]`.
    label: label column, unless the model is a fine-tuning run.
    folds: for an encoder, folds of the probe.
    group: clips of one group stay in one fold.
    train_split: for an encoder, value of `split` to fit the probe on.
    views: windows averaged per clip; default: as in evaluation.
    batch_size: clips per batch.
    workers: number of decoding processes.
    seed: of the noise. Use one seed for runs to compare.
    allow: packages whose classes the bundle may import.

    A run keeps the record. Raises `RequestError` if model and shards do not fit.
    """
    from contextlib import nullcontext

    from ...tasks.splits.split_plan import SplitPlan
    from ..jobs.robustness import Options
    from ..jobs.robustness import robustness as measure

    places = [str(place) for place in ([shards] if isinstance(shards, str | Path) else shards)]
    check_shards(places)
    check_bundle(model, split=True)
    plan = SplitPlan(folds, group=group, train=train_split, seed=seed)
    options = Options(label, split, plan, tuple(axis), views, batch_size, workers, seed)
    command = f"modalgate robustness {model} {' '.join(places)}"
    with allowing(allow):
        return measure(Path(model), places, options, lambda _: nullcontext(_no_bar), command)


def compare(runs: Sequence[Place], *, out: Place | None = None) -> Compared:
    """Tests fine-tuning runs in pairs: differences with intervals, tests, Holm.

    runs: two or more run folders with the same test clips.
    out: also write an HTML page of all runs; replaces an earlier one.

    Raises `RequestError` for runs without scores or with different test clips.
    """
    from ...shards.index.whole_file import PAGE, keep_others
    from ...tasks.records import scores_file

    folders = [Path(run) for run in runs]
    if out is not None:
        keep_others(Path(out), "out", PAGE)
    for run in folders:
        scores_file(run)
    from ...tasks.evaluation.run_comparison import compare as run_comparison
    from ...tasks.report.page import write_report

    pairs, result = run_comparison(folders, f"modalgate compare {' '.join(map(str, folders))}")
    if out is not None:
        write_report(folders, Path(out), [result])
    return Compared(pairs, result)


def detect(
    model: Place,
    folder: Place,
    *,
    spans: Place,
    label: str | None = None,
    hop: float | None = None,
    threshold: float | None = None,
    allow: Sequence[str] = (),
) -> Detected:
    """Finds events in untrimmed recordings: average precision, AUC, alarms, delay.

    model: a classifier's bundle or run folder. A run keeps the record.
    folder: untrimmed recordings, at any depth.
    spans: CSV of events with the columns video,start,end[,label], times in seconds.
    label: the class to find; default: the positive class.
    hop: seconds between pieces; default: as in evaluation.
    threshold: score of an alarm, chosen on other recordings; default: the model's, or 0.5.
    allow: packages whose classes the bundle may import.

    Raises `RequestError` if the table does not fit the recordings or the model, `DataError` for an unreadable
    recording.
    """
    from ..predict.detecting import detect as run_detection
    from ..runs.recorded import keep_record

    check_bundle(model)
    check_recordings(Path(folder), Path(spans))
    command = f"modalgate detect {model} {folder} --spans {spans}"
    with allowing(allow):
        videos, result = run_detection(
            Path(model), Path(folder), Path(spans), label=label, hop=hop, threshold=threshold, command=command
        )
    if (Path(model) / "config.yaml").is_file():
        keep_record(result, Path(model))
    return Detected(videos, result)


def study(
    config: Place, overrides: Settings = (), *, resume: bool | Literal["auto"] = False, allow: Sequence[str] = ()
) -> "Studied":
    """Compares fusions and single modalities over seeds and folds.

    config: a shipped config, a YAML file or a run folder.
    overrides: settings to change, as `["jobs=2"]` or `{"jobs": 2}`.
    resume: resume the run; `"auto"` starts the run if it does not exist.
    allow: packages whose classes the study may import.

    The tables are in the run folder. Raises `RequestError` for invalid settings.
    """
    from ..config.load import load_config
    from ..jobs.resuming import resumed
    from ..schema import StudyConfig

    given = as_overrides(overrides)
    settings = load_config("study", str(config), given)
    assert isinstance(settings, StudyConfig)
    settings, again = resumed(settings, resume_word(resume), None)
    check_config(settings, again)
    from ..jobs.study_job import study as run_study

    with allowing(allow):
        return run_study(settings, command_of("study", config, given), again)


def report(runs: Sequence[Place], *, out: Place | None = None, prediction: Sequence[Place] = ()) -> Reported:
    """Writes an HTML page of curves, tables, gates and clips.

    runs: run folders to show on one page.
    out: the page; default: report.html in the first run. Replaces an earlier page.
    prediction: also show these files of `modalgate predict --out`.

    Raises `RequestError` for a folder that is not a run and for a file that may not be replaced.
    """
    from ...shards.index.whole_file import PAGE, keep_others
    from ...tasks.prediction.prediction_file import read_predictions
    from ...tasks.report.page import write_report

    folders = [Path(run) for run in runs]
    target = Path(out) if out is not None else folders[0] / "report.html"
    keep_others(target, "out", PAGE)
    write_report(folders, target, [read_predictions(Path(path)) for path in prediction])
    return Reported(target)


def _no_bar(count: int = 1, **fields: object) -> None:
    """Takes the place of a progress bar."""
