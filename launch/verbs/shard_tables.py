"""What `pack`, `inspect` and `verify` print about a shard folder."""

from dataclasses import asdict
from pathlib import Path

import typer

from ...shards.errors import DataError
from ...shards.index.shard_summary import summarise
from ...shards.index.table import load_index
from ...shards.index.verify import verify
from ...shards.packing.pack import REJECTED_NAME
from ...shards.packing.rejected import read_rejected
from ...shards.packing.sources import find_recordings
from ..runs.closing_table import print_rejected, print_table, write_json
from ..runs.next_step import pretrain_line

# Longer tables are cut; the JSON file has every row.
SHARD_ROWS, NEAR_ROWS = 16, 20


def print_packed(source: Path, out: Path, labels: Path | None, labelled_only: bool, json: Path | None) -> None:
    """The packed shards, and how many recordings of `source` are labelled, unlabelled, rejected and not packed."""
    found = find_recordings(source, labels, labelled_only)
    counts = {
        "labelled": found.labelled,
        "unlabelled": len(found.sources) - found.labelled,
        "rejected": len(read_rejected(out / REJECTED_NAME)),
        "left_out": found.left_out,
    }
    print_shards(out, json, counts)
    columns = ("labelled", "unlabelled", "of these rejected", "files not packed")
    print_table(f"Recordings of {source}", columns, [tuple(counts.values())])
    print_rejected(out / REJECTED_NAME)
    typer.echo(pretrain_line(out))


def print_shards(shards: Path, json: Path | None, recordings: dict[str, int] | None = None) -> None:
    """Tables of a shard folder's modalities, shards and label columns; the JSON file also has `recordings`."""
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
        typer.echo(f"{summary.silent} clips have a silent sound track, which is not packed")
    if summary.gapped:
        typer.echo(f"{summary.gapped} clips lack parts of their sound, which are silent: see gaps in their JSON")
    names = index.settings.modalities
    held = [
        (row.name, row.clips, *(row.present.get(name, 0) for name in names), row.bytes / 1e6, row.entropy)
        for row in summary.shards[:SHARD_ROWS]
    ]
    most = max(len(summary.shards), 1)
    typer.echo(f"{most} shards serve at most {most} readers (ranks x workers); pack with --readers for more")
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


def print_verified(shards: Path, duplicates: bool, json: Path | None) -> None:
    """What is wrong with the shards, and near-duplicate clips if `duplicates`. Raises `DataError` for a problem."""
    problems = verify(shards)
    pairs = _duplicates(shards) if duplicates and not problems else []
    write_json(json, {"shards": str(shards), "problems": problems} | ({"duplicates": pairs} if duplicates else {}))
    if pairs:
        more = f"; the nearest {NEAR_ROWS}, all with --json" if len(pairs) > NEAR_ROWS else ""
        title = f"{len(pairs)} pairs of clips are nearly the same: keep each pair on one side of a split{more}"
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
    from ...tasks.splits.leak_check import clip_hashes, duplicates

    index = load_index(shards)
    keys = [sample.key for sample in index.samples]
    return [(keys[pair.first], keys[pair.second], pair.bits) for pair in duplicates(index, *clip_hashes(index))]
