"""`modalgate world`, `pack`, `inspect` and `verify`: write shards and check them."""

from pathlib import Path
from typing import Annotated

import typer

from ...shards.index.whole_file import PICTURE
from ...shards.media.pack_settings import PackSettings
from ..runs.next_step import next_line, pretrain_line
from .shared_options import Declare, Json, Rate, declare_modalities, names_in, parse_rates, parse_region, replacing

Shards = Annotated[Path, typer.Argument(metavar="SHARDS", help="A folder written by `modalgate pack`.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes. Default: one per core.", show_default=False)]


def world(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty folder.")],
    preset: Annotated[
        str,
        typer.Option(help="impact12 (12 actions), impact32, strike (violence), chorus, solo, duet, place or melee."),
    ] = "impact12",
    clips: Annotated[int, typer.Option(min=1, help="Number of clips over all splits.")] = 480,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same corpus.")] = 0,
    rho: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a stream shows the symbol of another class.")
    ] = 0.0,
    sensor_flow: Annotated[bool, typer.Option("--sensor-flow", help="Also write exact flow files.")] = False,
    twin: Annotated[
        str, typer.Option(help="Remove a cue: order, direction, pace, synchrony, alignment or pairing.")
    ] = "",
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
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A folder for the shards: new, empty or interrupted.")],
    labels: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Label columns by file. Default: SOURCE/labels.csv if it exists."),
    ] = None,
    modalities: Annotated[
        str, typer.Option(help="Modalities to store, separated by commas. Default: all.", show_default=False)
    ] = "",
    size: Annotated[int, typer.Option(min=16, help="Short side in pixels.")] = PackSettings.size,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames per second of video streams.")] = PackSettings.fps,
    sample_rate: Annotated[int, typer.Option(min=1000, help="Sound samples per second.")] = PackSettings.sample_rate,
    flow_bound: Annotated[
        float, typer.Option(min=0.1, help="Largest flow stored, in pixels per frame at the packed size.")
    ] = PackSettings.flow_bound,
    clip_seconds: Annotated[
        float, typer.Option(min=0.5, help="Cut longer files into clips of this length.")
    ] = PackSettings.clip_seconds,
    silence_db: Annotated[
        float, typer.Option(max=0, help="Drop quieter sound tracks. In dB of full scale.")
    ] = PackSettings.silence_db,
    declare: Declare = None,
    rate: Rate = None,
    depth_scale: Annotated[
        float, typer.Option(min=1e-6, help="Millimetres per level of a depth file.")
    ] = PackSettings.depth_scale,
    region: Annotated[
        str,
        typer.Option(
            metavar="L,T,W,H",
            help="Part of every picture to keep: left, top, width, height, as shares.",
            show_default=False,
        ),
    ] = "",
    samples_per_shard: Annotated[int, typer.Option(min=1, help="Clips per tar.")] = PackSettings.samples_per_shard,
    readers: Annotated[
        int, typer.Option(min=1, help="Write at least this many shards: ranks x workers that read at once.")
    ] = PackSettings.readers,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Fail above this share of unreadable recordings.")
    ] = 0.05,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Reject recordings with more pixels per picture.")
    ] = PackSettings.max_pixels,
    max_seconds: Annotated[float, typer.Option(min=1, help="Reject longer recordings.")] = PackSettings.max_seconds,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of clips over the shards.")] = PackSettings.seed,
    labelled_only: Annotated[
        bool, typer.Option("--labelled-only", help="Pack only recordings named in the label file.")
    ] = False,
    repack: Annotated[
        bool, typer.Option("--repack", help="Replace finished shards, as after a change of the recordings.")
    ] = False,
    workers: Workers = None,
    engine: Annotated[str, typer.Option(help="local, or ray: a Ray cluster (RAY_ADDRESS).")] = "local",
    json: Json = None,
) -> None:
    """Pack a folder of media files into shards. Rerun to resume."""
    from ..jobs.first_checks import check_recordings

    # Known before any file or rate is read by its name.
    declare_modalities(declare)
    check_recordings(source, labels)
    from ...shards.errors import DataError
    from ...shards.packing.pack import REJECTED_NAME
    from ...shards.packing.pack import pack as pack_folder
    from ..runs.closing_table import print_rejected
    from ..runs.progress import counted
    from .shard_tables import print_packed

    settings = PackSettings(
        modalities=tuple(names_in(modalities)),
        size=size,
        fps=fps,
        sample_rate=sample_rate,
        flow_bound=flow_bound,
        clip_seconds=clip_seconds,
        silence_db=silence_db,
        rates=parse_rates(rate),
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
            pack_folder(source, out, settings, labels, workers, max_rejected, progress, engine, labelled_only, repack)
    except DataError:
        print_rejected(out / REJECTED_NAME)
        raise
    except KeyboardInterrupt:
        typer.echo("stopped: rerun the same command to resume", err=True)
        raise
    print_packed(source, out, labels, labelled_only, json)


def inspect(
    shards: Shards,
    png: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw a contact sheet of some clips; replaces an earlier one.",
            callback=replacing("--png", PICTURE),
        ),
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Rows of the contact sheet.")] = 8,
    json: Json = None,
) -> None:
    """Show the contents of a shard folder."""
    from ..jobs.first_checks import check_shards

    check_shards(shards)
    from .shard_tables import print_shards

    print_shards(shards, json)
    if png is not None:
        from ...shards.clips.contact_sheet import draw_contact_sheet

        draw_contact_sheet(shards, png, clips)
        typer.echo(f"contact sheet of {clips} clips: {png}")
    typer.echo(pretrain_line(shards))


def verify(
    shards: Shards,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Also list nearly identical clips of different groups.")
    ] = False,
    json: Json = None,
) -> None:
    """Check every shard: checksums, index, and that all clips decode."""
    from ..jobs.first_checks import check_shards

    check_shards(shards)
    from .shard_tables import print_verified

    print_verified(shards, duplicates, json)
