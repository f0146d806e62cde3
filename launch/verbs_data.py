"""`modalgate world`, `pack`, `inspect` and `verify`: making shards and looking into them."""

from pathlib import Path
from typing import Annotated

import typer

from ..shards.index import PackSettings

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]
Shards = Annotated[Path, typer.Argument(metavar="SHARDS", help="A folder that `modalgate pack` wrote.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.", show_default=False)]


def world(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty or new folder.")],
    preset: Annotated[str, typer.Option(help="impact12 (12 actions) or strike (violence).")] = "impact12",
    clips: Annotated[int, typer.Option(min=1, help="Clips over all splits.")] = 480,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same corpus.")] = 0,
    rho: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a stream shows another class's symbol.")
    ] = 0.0,
    sensor_flow: Annotated[bool, typer.Option("--sensor-flow", help="Also write exact flow files.")] = False,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Write the generated corpus as media files with labels.csv."""
    from ..shards.world import write_world
    from .progress import counted
    from .tables import print_table, write_json

    with counted(f"world {preset}") as progress:
        facts = write_world(
            out, preset, clips, seed, rho=rho, sensor_flow=sensor_flow, workers=workers, progress=progress
        )
    columns = ("blind", "told", "aware")
    rows = [(streams, *(entry[column] for column in columns)) for streams, entry in facts["ceilings"].items()]
    print_table(f"{clips} clips in {out}: the best accuracy any model can reach", ("streams", *columns), rows)
    write_json(json, facts)


def pack(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of video files, at any depth.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty or new folder for the shards.")],
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Label columns by file; SOURCE/labels.csv if it is there.")
    ] = None,
    modalities: Annotated[str, typer.Option(help="What to store, separated by commas.")] = ",".join(
        PackSettings.modalities
    ),
    size: Annotated[int, typer.Option(min=16, help="Short side in pixels.")] = PackSettings.size,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of every video stream.")] = PackSettings.fps,
    sample_rate: Annotated[int, typer.Option(min=1000, help="Of the sound, in Hz.")] = PackSettings.sample_rate,
    flow_bound: Annotated[
        float, typer.Option(min=0.1, help="Largest flow that is kept, in pixel/frame at the packed size.")
    ] = PackSettings.flow_bound,
    clip_seconds: Annotated[
        float, typer.Option(min=0.5, help="Longer files are cut into clips of this length.")
    ] = PackSettings.clip_seconds,
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Clips per tar.")] = PackSettings.samples_per_shard,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable files above which packing fails.")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Of the clips' order over the shards.")] = PackSettings.seed,
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Turn a folder of media files into shards."""
    from ..shards.pack import pack as pack_folder
    from .progress import counted

    names = tuple(dict.fromkeys(name.strip() for name in modalities.split(",") if name.strip()))
    settings = PackSettings(
        modalities=names,
        size=size,
        fps=fps,
        sample_rate=sample_rate,
        flow_bound=flow_bound,
        clip_seconds=clip_seconds,
        samples_per_shard=samples_per_shard,
        seed=seed,
    )
    with counted("pack") as progress:
        pack_folder(
            source, out, settings, labels=labels, workers=workers, max_rejected=max_rejected, progress=progress
        )
    _summary(out, json)


def inspect(
    shards: Shards,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a contact sheet of some clips here.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Rows of the contact sheet.")] = 8,
    json: Json = None,
) -> None:
    """Show what a shard folder holds."""
    _summary(shards, json)
    if png is not None:
        from ..shards.contact import draw_contact_sheet

        draw_contact_sheet(shards, png, clips)
        typer.echo(f"contact sheet of {clips} clips: {png}")


def verify(shards: Shards, json: Json = None) -> None:
    """Check a shard folder in full: checksums, index, and that every clip decodes."""
    from ..shards.errors import DataError
    from ..shards.verify import verify as verify_folder
    from .tables import write_json

    problems = verify_folder(shards)
    write_json(json, {"shards": str(shards), "problems": problems})
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise DataError(f"'{shards}' failed verification: {len(problems)} problems; pack its source again")
    typer.echo(f"'{shards}' is whole")


def _summary(shards: Path, json: Path | None) -> None:
    """Tables of a shard folder's modalities and label columns."""
    from collections import Counter

    from ..shards.index import load_index
    from .tables import print_table, write_json

    index = load_index(shards)
    total = len(index.samples)
    counts = {name: sum(shard.present.get(name, 0) for shard in index.shards) for name in index.settings.modalities}
    hours = sum(sample.duration for sample in index.samples) / 3600
    size = sum(shard.bytes for shard in index.shards)
    title = f"{shards}: {total} clips, {hours:.2f} hours, {len(index.shards)} shards, {size / 1e6:.1f} MB"
    print_table(title, ("modality", "clips", "share"), [(name, n, n / max(total, 1)) for name, n in counts.items()])
    columns = {name: dict(Counter(index.column(name)).most_common()) for name in index.columns}
    rows = [
        (
            name,
            len(values),
            ", ".join(f"{value or '(none)'} {n}" for value, n in list(values.items())[:8])
            + ", ..." * (len(values) > 8),
        )
        for name, values in columns.items()
    ]
    if rows:
        print_table("Label columns", ("column", "values", "most frequent"), rows)
    facts = {"clips": total, "hours": hours, "shards": len(index.shards), "bytes": size}
    write_json(json, {**facts, "modalities": counts, "columns": columns})
