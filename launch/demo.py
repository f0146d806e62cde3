"""`demo`: the whole way on a generated corpus, from media files to an evaluated, exported encoder."""

import csv
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..shards.errors import RequestError
from .next_step import browse

ACTION_CLIPS, VIOLENCE_CLIPS = 1100, 420
_MARK = ".modalgate-demo"


def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new folder, or one an earlier demo wrote.")] = Path(
        "demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of the corpus and of every training.")] = 0,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")] = None,
) -> None:
    """Run the whole way on a generated corpus: a few minutes on two cores."""
    from .tables import write_json

    _claim(out)
    began = time.monotonic()
    facts = _run(out, seed)
    facts["seconds"] = time.monotonic() - began
    write_json(json, facts)
    typer.echo(f"\nreport: {out / 'report.html'}    encoder: {out / 'encoder'}    classifier: {out / 'violence'}")
    typer.echo(f"took {facts['seconds'] / 60:.1f} minutes\n{browse(out / 'report.html')}")


def _claim(out: Path) -> None:
    """Only a demo's own folder is ever emptied."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / _MARK).is_file())):
        raise RequestError(f"'{out}' holds something that no demo wrote: give --out another folder")
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
    with _step(1, f"write {ACTION_CLIPS} action and {VIOLENCE_CLIPS} violence clips as media files"):
        worlds = {
            "actions": _world(out / "world" / "actions", "impact12", ACTION_CLIPS, seed),
            "violence": _world(out / "world" / "violence", "strike", VIOLENCE_CLIPS, seed),
        }
    with _step(2, "pack them into shards: RGB, optical flow, sound, depth"):
        for name in worlds:
            _pack(out / "world" / name, out / "shards" / name)
    with _step(3, "pretrain an encoder without labels: correspondence, clip order, cross-modal"):
        _pretrain(out, seed)
    with _step(4, "probe it: 12 actions from frozen features"):
        probed = _probe(out, seed)
    with _step(5, "fine-tune a violence classifier from it"):
        finetuned = _finetune(out, seed)
    with _step(6, "export both"):
        _export(out)
    with _step(7, "predict one held-out file, and write the report"):
        predicted = _predict(out)
        _report(out)
    facts = _facts(worlds, probed, finetuned)
    _print(facts, predicted)
    return facts | {"predicted": predicted}


def _world(out: Path, preset: str, clips: int, seed: int) -> dict[str, Any]:
    from ..shards.world import write_world
    from .progress import counted

    with counted(preset) as progress:
        return write_world(out, preset, clips, seed, progress=progress)


def _pack(source: Path, out: Path) -> None:
    from ..shards.index import PackSettings
    from ..shards.pack import pack
    from .progress import counted

    settings = PackSettings(modalities=("rgb", "flow", "audio", "depth"), size=48, fps=8.0, flow_bound=16.0)
    with counted(source.name) as progress:
        pack(source, out, settings, progress=progress)


def _pretrain(out: Path, seed: int) -> None:
    from .config import load_config
    from .pretraining import pretrain
    from .schema import PretrainConfig

    config = load_config("pretrain", "demo-pretrain", _overrides(out, "actions", seed))
    assert isinstance(config, PretrainConfig)
    pretrain(config, ["modalgate", "demo"])


def _overrides(out: Path, corpus: str, seed: int) -> list[str]:
    return [f"data.shards={out / 'shards' / corpus}", f"out={out / 'runs'}", f"seed={seed}"]


def _probe(out: Path, seed: int) -> Any:
    from ..tasks.results import save_result
    from .probing import probe
    from .progress import counted

    run = out / "runs" / "demo-pretrain"
    with counted("probe") as progress:
        probed = probe(run, out / "shards" / "actions", seed=seed, command="modalgate demo", progress=progress)
    save_result(probed.result, run)
    return probed


def _finetune(out: Path, seed: int) -> Any:
    from .config import load_config
    from .finetuning import finetune
    from .schema import FinetuneConfig

    encoder = f"encoder={out / 'runs' / 'demo-pretrain' / 'encoder'}"
    config = load_config("finetune", "demo-violence", [*_overrides(out, "violence", seed), encoder])
    assert isinstance(config, FinetuneConfig)
    return finetune(config, ["modalgate", "demo"])


def _export(out: Path) -> None:
    from .exporting import export_bundle

    for run, target in (("demo-pretrain", "encoder"), ("demo-violence", "violence")):
        _, difference = export_bundle(out / "runs" / run, out / target)
        typer.echo(f"     {out / target}: reloaded outputs differ by at most {difference:.1g}")


@dataclass(frozen=True)
class _HeldOut:
    video: Path
    depth: Path
    label: str


def _held_out(world: Path) -> _HeldOut:
    with (world / "labels.csv").open(encoding="utf-8", newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["split"] == "test" and row["label"] == "contact")
    return _HeldOut(world / row["video"], world / row["depth"], row["label"])


def _predict(out: Path) -> dict[str, Any]:
    from ..tasks.results import save_result
    from .predicting import predict_source, prediction_result
    from .prediction_request import PredictRequest

    clip = _held_out(out / "world" / "violence")
    request = PredictRequest({"depth": clip.depth}, out=out / "prediction.jsonl", png=out / "prediction.png")
    (predicted,) = predict_source(out / "violence", str(clip.video), request)
    save_result(prediction_result(predicted.timeline, "modalgate demo"), out / "runs" / "demo-violence")
    return {
        "file": str(clip.video),
        "label": clip.label,
        "windows": predicted.windows,
        "mean_contact": predicted.means["contact"],
    }


def _report(out: Path) -> None:
    from ..shards.contact import draw_contact_sheet
    from ..tasks.report import write_report

    for run, corpus in (("demo-pretrain", "actions"), ("demo-violence", "violence")):
        draw_contact_sheet(out / "shards" / corpus, out / "runs" / run / "contact.png", 4)
    write_report([out / "runs" / "demo-pretrain", out / "runs" / "demo-violence"], out / "report.html")


def _facts(worlds: dict[str, Any], probed: Any, finetuned: Any) -> dict[str, Any]:
    """The closing table's figures; ceilings come from the corpus's own file."""
    ceilings = worlds["actions"]["ceilings"]
    everything = max(ceilings, key=lambda key: key.count("+"))
    rows = []
    for row, control in zip(probed.rows, probed.untrained, strict=True):
        ceiling = ceilings[everything if row.feature in ("fused", "concat") else row.feature]
        rows.append(
            {
                "feature": row.feature,
                "probe": row.accuracy,
                "low": row.low,
                "high": row.high,
                "untrained": control.accuracy,
                "ceiling": ceiling["aware"],
                "late_ceiling": ceiling["late_aware"],
                "gate": probed.weights.get(row.feature),
                "clips": row.clips,
            }
        )
    return {
        "probe": rows,
        "violence_auc": finetuned.metrics["auc"],
        "violence_auc_interval": finetuned.intervals["auc"],
        "violence_accuracy": finetuned.metrics["accuracy"],
        "violence_clips": len(finetuned.scores.keys),
    }


def _print(facts: dict[str, Any], predicted: dict[str, Any]) -> None:
    from .tables import print_table

    typer.echo("")
    rows = [
        (
            row["feature"],
            f"{row['probe']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
            f"{row['untrained']:.3f}",
            f"{row['ceiling']:.3f}",
            "-" if row["gate"] is None else f"{row['gate']:.2f}",
        )
        for row in facts["probe"]
    ]
    title = f"12 actions, linear probe on {facts['probe'][0]['clips']} held-out clips (chance 0.083)"
    print_table(title, ("feature", "pretrained [95 %]", "untrained", "ceiling", "mean gate"), rows)
    low, high = facts["violence_auc_interval"]
    typer.echo(
        f"violence, fine-tuned: AUC {facts['violence_auc']:.3f} [{low:.3f}, {high:.3f}] "
        f"on {facts['violence_clips']} held-out clips (ceiling 1.000)"
    )
    typer.echo(
        f"prediction of {Path(predicted['file']).name} ({predicted['label']}): "
        f"contact {predicted['mean_contact']:.2f} over {predicted['windows']} windows"
    )
