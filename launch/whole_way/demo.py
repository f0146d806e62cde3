"""`demo`: all steps on a generated corpus, from media files to an evaluated, exported encoder."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import typer

from ...shards.errors import RequestError
from ...shards.index.whole_file import keep_results
from ..runs.next_step import browse

PRESET = "melee"
# Clips for pretraining (labels unused), labelled training clips, and held-out test clips.
SHARES = {"pretrain": 600, "train": 32, "test": 200}
BROKEN = "rgb"
RUNS = {"demo-violence": "fine-tuned, from the pretrained encoder", "demo-scratch": "the same network from scratch"}
_MARK = ".modalgate-demo"


def run_demo(out: Path, seed: int, json: Path | None = None, overwrite: bool = False) -> None:
    """Runs every step on a generated corpus in `out`, from media files to an exported classifier and a report.

    Raises `RequestError` if `out` holds files that no demo wrote, or an earlier demo and not `overwrite`.
    """
    from ..runs.closing_table import write_json

    _claim(out, overwrite)
    began = time.monotonic()
    facts = _run(out, seed)
    facts["seconds"] = time.monotonic() - began
    write_json(json, facts)
    typer.echo(f"\nreport: {out / 'report.html'}    encoder: {out / 'encoder'}    classifier: {out / 'violence'}")
    typer.echo(f"took {facts['seconds'] / 60:.1f} minutes\n{browse(out / 'report.html')}")


def _claim(out: Path, overwrite: bool) -> None:
    """Creates `out`; only a demo's own folder is emptied, and only on request."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file())):
        raise RequestError(f"'{out}' holds files that no demo wrote: give --out another folder")
    keep_results(out, "--out", overwrite)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / _MARK).touch()


@contextmanager
def _step(number: int, text: str) -> Iterator[None]:
    typer.secho(f"\n{number}/7  {text}", bold=True)
    began = time.monotonic()
    yield
    typer.echo(f"     {time.monotonic() - began:.0f} s")


def _run(out: Path, seed: int) -> dict[str, Any]:
    with _step(1, f"write {sum(SHARES.values())} clips as media files, {SHARES['train']} of them labelled"):
        world = _world(out / "world", seed)
    with _step(2, "pack them into shards: RGB, depth, sound"):
        _pack(out / "world", out / "shards")
    with _step(3, "pretrain an encoder without labels: cross-modal, across time, gate denoising"):
        _pretrain(out, seed)
    with _step(4, f"probe it: 8 actions from frozen features and {SHARES['train']} labels"):
        probed = _probe(out, seed)
    with _step(5, "fine-tune a violence classifier from it, and the same network from scratch"):
        classifiers = {run: _finetune(out, run, seed) for run in RUNS}
    with _step(6, "break the camera: gate weights and accuracy"):
        facts = _break(out, seed, world["ceilings"], probed, classifiers)
    with _step(7, "export, predict a recording whose camera breaks, and write the report"):
        _export(out)
        facts |= {"predicted": _predict(out, seed)}
        _report(out, facts)
    _print(facts)
    return facts


def _world(out: Path, seed: int) -> dict[str, Any]:
    from ...shards.worlds.write_world import write_world
    from ..runs.progress import counted

    with counted(PRESET) as progress:
        return write_world(out, PRESET, sum(SHARES.values()), seed, shares=SHARES, progress=progress)


def _pack(source: Path, out: Path) -> None:
    from ...shards.media.pack_settings import PackSettings
    from ...shards.packing.pack import pack
    from ..runs.progress import counted

    settings = PackSettings(modalities=("rgb", "depth", "audio"), size=32, fps=8.0, sample_rate=8000)
    with counted("pack") as progress:
        pack(source, out, settings, progress=progress)


def _pretrain(out: Path, seed: int) -> None:
    from ..config.load import load_config
    from ..jobs.pretraining import pretrain
    from ..schema import PretrainConfig

    config = load_config("pretrain", "demo-melee", _overrides(out, seed))
    assert isinstance(config, PretrainConfig)
    pretrain(config, ["modalgate", "demo"])


def _overrides(out: Path, seed: int) -> list[str]:
    return [f"data.shards={out / 'shards'}", f"out={out / 'runs'}", f"seed={seed}"]


def _probe(out: Path, seed: int) -> Any:
    from ...tasks.records import save_result
    from ..jobs.probing import probe
    from ..runs.progress import counted

    run = out / "runs" / "demo-pretrain"
    with counted("probe") as progress:
        probed = probe(run, out / "shards", seed=seed, command="modalgate demo", progress=progress)
    save_result(probed.result, run)
    return probed


def _finetune(out: Path, run: str, seed: int) -> Any:
    from ..config.load import load_config
    from ..finetune.finetuning import finetune
    from ..schema import FinetuneConfig

    overrides = [*_overrides(out, seed), f"name={run}"]
    if run == "demo-violence":
        overrides.append(f"encoder={out / 'runs' / 'demo-pretrain' / 'encoder'}")
    config = load_config("finetune", "demo-melee-violence", overrides)
    assert isinstance(config, FinetuneConfig)
    return finetune(config, ["modalgate", "demo"])


def _break(out: Path, seed: int, ceilings: Any, probed: Any, classifiers: dict[str, Any]) -> dict[str, Any]:
    from ...tasks.robustness.breakage import Breakage
    from .demo_figures import closing_facts, measure_kept

    runs = out / "runs"
    kept = measure_kept(
        runs / "demo-pretrain", [runs / name for name in RUNS], out / "shards", Breakage(BROKEN, seed=seed)
    )
    return closing_facts(ceilings, probed, classifiers, kept, BROKEN)


def _export(out: Path) -> None:
    from ..export.exporting import export_bundle

    for run, target in (("demo-pretrain", "encoder"), ("demo-violence", "violence")):
        _, difference = export_bundle(out / "runs" / run, out / target)
        typer.echo(f"     {out / target}: reloaded outputs differ by at most {difference:.1g}")


def _predict(out: Path, seed: int) -> dict[str, Any]:
    """Runs the exported classifier on a recording; returns its gate's mean weight for the camera, whole and
    broken.
    """
    from ...tasks.report.charts import draw_timeline
    from ..predict.predicting import predict_source
    from ..predict.prediction_request import PredictRequest
    from .demo_recording import write_recording

    recording = write_recording(out / "recording", PRESET, seed, sum(SHARES.values()))
    request = PredictRequest({"depth": recording.depth}, out=out / "prediction.jsonl", overwrite=True)
    (predicted,) = predict_source(out / "violence", str(recording.video), request)
    timeline = replace(predicted.timeline, marks={"camera broken": recording.broken})
    draw_timeline(timeline, out / "prediction.png")
    start, end = recording.broken
    weights = [*zip(timeline.times, timeline.gates[BROKEN], strict=True)]
    # One-second windows with both whole and broken pictures are not counted.
    whole = [weight for time_, weight in weights if time_ <= start - 0.5 or time_ >= end + 0.5]
    broken = [weight for time_, weight in weights if start + 0.5 <= time_ <= end - 0.5]
    return {
        "file": str(recording.video),
        "windows": predicted.windows,
        "gate": sum(whole) / len(whole),
        "gate_broken": sum(broken) / len(broken),
        "timeline": asdict(timeline),
    }


def _report(out: Path, facts: dict[str, Any]) -> None:
    from ...shards.clips.contact_sheet import draw_contact_sheet
    from ...tasks.records import Timeline, new_result
    from ...tasks.report.page import write_report
    from .demo_figures import closing_tables

    runs = [out / "runs" / name for name in ("demo-pretrain", *RUNS)]
    draw_contact_sheet(out / "shards", runs[0] / "contact.png", 4)
    timeline = Timeline(**facts["predicted"]["timeline"])
    opening = new_result("demo", "A camera breaks: the weights of the gate", "modalgate demo", [], [timeline])
    tables = closing_tables(facts, SHARES["train"], RUNS)
    write_report(
        runs, out / "report.html", [opening, new_result("found", "What the demo found", "modalgate demo", tables, [])]
    )


def _print(facts: dict[str, Any]) -> None:
    from ..runs.closing_table import print_table
    from .demo_figures import closing_tables

    typer.echo("")
    for table in closing_tables(facts, SHARES["train"], RUNS):
        print_table(table.title, table.columns, table.rows)
        if table.note:
            typer.echo(table.note)
    predicted = facts["predicted"]
    typer.echo(
        f"{predicted['file']}: the gate's weight for the camera is {predicted['gate']:.2f}, and "
        f"{predicted['gate_broken']:.2f} while it is broken"
    )
