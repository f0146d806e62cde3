"""`modalgate world`, `pack`, `inspect` and `verify`: making shards and looking into them."""

from pathlib import Path
from typing import Annotated

import typer

from ...shards.media.pack_settings import PackSettings
from ...shards.media.region import Region
from ..runs.next_step import next_line, pretrain_line

Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Also write the figures here.")]
Shards = Annotated[Path, typer.Argument(metavar="SHARDS", help="A folder that `modalgate pack` wrote.")]
# A table of thousands of shards tells nobody anything; the JSON has all.
SHARD_ROWS = 16
NEAR_ROWS = 20
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.", show_default=False)]


def world(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="An empty or new folder.")],
    preset: Annotated[
        str,
        typer.Option(help="impact12 (12 actions), impact32, strike (violence), chorus, solo, duet, place or melee."),
    ] = "impact12",
    clips: Annotated[int, typer.Option(min=1, help="Clips over all splits.")] = 480,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same corpus.")] = 0,
    rho: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a stream shows another class's symbol.")
    ] = 0.0,
    sensor_flow: Annotated[bool, typer.Option("--sensor-flow", help="Also write exact flow files.")] = False,
    twin: Annotated[str, typer.Option(help="Leave a cue out: order, direction, pace, synchrony or pairing.")] = "",
    workers: Workers = None,
    json: Json = None,
) -> None:
    """Write the generated corpus as media files with labels.csv."""
    from ...shards.worlds.write_world import write_world
    from ..runs.closing_table import print_table, write_json
    from ..runs.progress import counted

    with counted(f"world {preset}") as progress:
        facts = write_world(
            out, preset, clips, seed, rho=rho, sensor_flow=sensor_flow, twin=twin, workers=workers, progress=progress
        )
    columns = ("blind", "told", "aware")
    rows = [(streams, *(entry[column] for column in columns)) for streams, entry in facts["ceilings"].items()]
    print_table(f"{clips} clips in {out}: the best accuracy any model can reach", ("streams", *columns), rows)
    write_json(json, facts)
    typer.echo(next_line("pack", out, f"{out}-shards"))


def pack(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of recordings, at any depth.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the shards: new, empty, or interrupted.")],
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Label columns by file; SOURCE/labels.csv if it is there.")
    ] = None,
    modalities: Annotated[
        str, typer.Option(help="What to store, separated by commas; by default all there is.", show_default=False)
    ] = "",
    size: Annotated[int, typer.Option(min=16, help="Short side in pixels.")] = PackSettings.size,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of every video stream.")] = PackSettings.fps,
    sample_rate: Annotated[int, typer.Option(min=1000, help="Of the sound, in Hz.")] = PackSettings.sample_rate,
    flow_bound: Annotated[
        float, typer.Option(min=0.1, help="Largest flow that is kept, in pixel/frame at the packed size.")
    ] = PackSettings.flow_bound,
    clip_seconds: Annotated[
        float, typer.Option(min=0.5, help="Longer files are cut into clips of this length.")
    ] = PackSettings.clip_seconds,
    silence_db: Annotated[
        float, typer.Option(max=0, help="A sound track quieter than this, in dB of full scale, is absent.")
    ] = PackSettings.silence_db,
    rate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=HZ",
            help="Of frame folders, arrays (video, depth) and signals; repeat it.",
            show_default=False,
        ),
    ] = None,
    depth_scale: Annotated[
        float, typer.Option(min=1e-6, help="Millimetres that one level of a depth file means.")
    ] = PackSettings.depth_scale,
    region: Annotated[
        str,
        typer.Option(
            metavar="L,T,W,H",
            help="The part of every picture to keep, as shares of it: left, top, width, height.",
            show_default=False,
        ),
    ] = "",
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Clips per tar.")] = PackSettings.samples_per_shard,
    readers: Annotated[
        int, typer.Option(min=1, help="Ranks x workers that will read at once: at least so many shards.")
    ] = PackSettings.readers,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable recordings above which packing fails.")
    ] = 0.05,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Per picture; a recording of larger ones is rejected.")
    ] = PackSettings.max_pixels,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="A longer recording is rejected.")
    ] = PackSettings.max_seconds,
    seed: Annotated[int, typer.Option(min=0, help="Of the clips' order over the shards.")] = PackSettings.seed,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="Only the recordings that the label file names.")
    ] = False,
    workers: Workers = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a Ray cluster (RAY_ADDRESS).")] = "local",
    json: Json = None,
) -> None:
    """Turn a folder of media files into shards; run again after an interruption, it goes on."""
    from .first_checks import check_recordings

    check_recordings(source, labels)
    from ...shards.errors import DataError
    from ...shards.packing.pack import REJECTED_NAME
    from ...shards.packing.pack import pack as pack_folder
    from ...shards.packing.rejected import read_rejected
    from ...shards.packing.sources import find_recordings
    from ..runs.closing_table import print_rejected, print_table
    from ..runs.progress import counted

    names = tuple(dict.fromkeys(name.strip() for name in modalities.split(",") if name.strip()))
    settings = PackSettings(
        modalities=names,
        size=size,
        fps=fps,
        sample_rate=sample_rate,
        flow_bound=flow_bound,
        clip_seconds=clip_seconds,
        silence_db=silence_db,
        rates=parse_rates(rate or []),
        depth_scale=depth_scale,
        region=parse_region(region),
        samples_per_shard=samples_per_shard,
        readers=readers,
        max_pixels=max_pixels,
        max_seconds=max_seconds,
        seed=seed,
    )
    try:
        with counted("pack") as progress:
            pack_folder(source, out, settings, labels, workers, max_rejected, progress, engine, labelled_only)
    except DataError:
        print_rejected(out / REJECTED_NAME)
        raise
    except KeyboardInterrupt:
        typer.echo("stopped: the same command goes on from here", err=True)
        raise
    found = find_recordings(source, labels, labelled_only)
    counts = {
        "labelled": found.labelled,
        "unlabelled": len(found.sources) - found.labelled,
        "rejected": len(read_rejected(out / REJECTED_NAME)),
        "left_out": found.left_out,
    }
    _summary(out, json, counts)
    columns = ("labelled", "unlabelled", "of these rejected", "files left out")
    print_table(f"Recordings of {source}", columns, [tuple(counts.values())])
    print_rejected(out / REJECTED_NAME)
    typer.echo(pretrain_line(out))


def parse_region(given: str) -> Region | None:
    """`0.25,0.5,0.5,0.5` as left, top, width and height; none where nothing is given."""
    from ...shards.errors import RequestError
    from ...shards.media.region import plain_region

    if not given:
        return None
    try:
        return plain_region([float(share) for share in given.split(",")])
    except ValueError as error:
        raise RequestError(
            f"--region {given}: give left, top, width and height as shares of the picture, such as 0.25,0.5,0.5,0.5"
        ) from error


def parse_rates(given: list[str]) -> dict[str, float]:
    """`depth=30` as {"depth": 30.0}; `rgb` is another name of `video`."""
    from ...shards.errors import RequestError, choice_error
    from ...shards.modality import MODALITIES

    rates = {}
    for text in given:
        name, _, hertz = text.partition("=")
        if name not in ("video", *MODALITIES):
            raise choice_error("name in --rate", name, ("video", *MODALITIES))
        try:
            value = float(hertz)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e6:
            raise RequestError(f"--rate {text}: give a number of Hz above 0, as in --rate {name}=30")
        rates["video" if name == "rgb" else name] = value
    return rates


def inspect(
    shards: Shards,
    png: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a contact sheet of some clips here.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Rows of the contact sheet.")] = 8,
    json: Json = None,
) -> None:
    """Show what a shard folder holds."""
    _summary(shards, json)
    if png is not None:
        from ...shards.clips.contact_sheet import draw_contact_sheet

        draw_contact_sheet(shards, png, clips)
        typer.echo(f"contact sheet of {clips} clips: {png}")
    typer.echo(pretrain_line(shards))


def verify(
    shards: Shards,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also list clips of different groups that are nearly the same.")
    ] = False,
    json: Json = None,
) -> None:
    """Check a shard folder in full: checksums, index, and that every clip decodes."""
    from .first_checks import check_shards

    check_shards(shards)
    from ...shards.errors import DataError
    from ...shards.index.verify import verify as verify_folder
    from ..runs.closing_table import print_table, write_json

    problems = verify_folder(shards)
    pairs = _duplicates(shards) if duplicates and not problems else []
    write_json(json, {"shards": str(shards), "problems": problems} | ({"duplicates": pairs} if duplicates else {}))
    if pairs:
        more = f"; the nearest {NEAR_ROWS}, --json has all" if len(pairs) > NEAR_ROWS else ""
        title = f"{len(pairs)} pairs of clips are nearly the same: a split must not divide them{more}"
        print_table(title, ("clip", "and", "of 575 bits differ"), pairs[:NEAR_ROWS])
    elif duplicates and not problems:
        typer.echo("no two clips of different groups are nearly the same")
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise DataError(f"'{shards}' failed verification: {len(problems)} problems; pack its source again")
    typer.echo(f"'{shards}' is whole\n{pretrain_line(shards)}")


def _duplicates(shards: Path) -> list[tuple[str, str, int]]:
    """Keys of near-duplicates, and how many bits of their hashes differ."""
    from ...shards.index.table import load_index
    from ...tasks.splits.leak_check import clip_hashes, duplicates

    index = load_index(shards)
    keys = [sample.key for sample in index.samples]
    return [(keys[pair.first], keys[pair.second], pair.bits) for pair in duplicates(index, *clip_hashes(index))]


def _summary(shards: Path, json: Path | None, recordings: dict[str, int] | None = None) -> None:
    """Tables of a shard folder's modalities, shards and label columns; the JSON also has the `recordings` counted."""
    from dataclasses import asdict

    from ...shards.index.shard_summary import summarise
    from ...shards.index.table import load_index
    from ..runs.closing_table import print_table, write_json

    index = load_index(shards)
    summary = summarise(index)
    total = max(summary.clips, 1)
    title = (
        f"{shards}: {summary.clips} clips, {summary.hours:.2f} hours, {len(summary.shards)} shards, "
        f"{summary.bytes / 1e6:.1f} MB"
    )
    rows = [
        (row.name, row.clips, row.clips / total, f"{row.rate:g}" if row.rate else "-", row.bytes / 1e6)
        for row in summary.modalities
    ]
    print_table(title, ("modality", "clips", "share", "per second", "MB"), rows)
    if summary.silent:
        typer.echo(f"{summary.silent} clips have a sound track that is silence: it was left out")
    names = index.settings.modalities
    held = [
        (row.name, row.clips, *(row.present.get(name, 0) for name in names), row.bytes / 1e6, row.entropy)
        for row in summary.shards[:SHARD_ROWS]
    ]
    most = max(len(summary.shards), 1)
    typer.echo(f"{most} shards serve at most {most} readers (ranks x workers); for more, pack with --readers")
    column = f"bits of {summary.label_column}" if summary.label_column else "bits"
    told = f" (of all clips: {summary.entropy:.3g} bits)" if summary.entropy is not None else ""
    more = f", the first {SHARD_ROWS}" if len(summary.shards) > SHARD_ROWS else ""
    print_table(f"Shards{more}{told}", ("shard", "clips", *names, "MB", column), held)
    values = [
        (
            name,
            len(counts),
            summary.clips - sum(counts.values()),
            ", ".join(f"{value} {n}" for value, n in list(counts.items())[:8]) + ", ..." * (len(counts) > 8),
        )
        for name, counts in summary.labels.items()
    ]
    if values:
        print_table("Label columns", ("column", "values", "clips without", "most frequent"), values)
    write_json(json, asdict(summary) | ({"recordings": recordings} if recordings else {}))
