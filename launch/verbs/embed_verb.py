"""`modalgate embed`: features of recordings, for whatever comes after."""

from pathlib import Path
from typing import Annotated

import typer

from ..runs.next_step import features_line
from .use_verbs import Json


def embed(
    encoder: Annotated[
        Path, typer.Argument(metavar="ENCODER", help="A bundle, a run folder that holds one, or hf://OWNER/NAME.")
    ],
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A folder of media, a list (.txt, .csv), a media file, or shards."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file: .parquet or .npz.")],
    hop: Annotated[
        float | None,
        typer.Option(min=0.01, help="Seconds between pieces; by default as evaluated.", show_default=False),
    ] = None,
    modality_features: Annotated[
        bool, typer.Option("--modality-features", help="Also each modality's own features, before the fusion.")
    ] = False,
    rate: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=HZ", help="Of frame folders, arrays and signals; repeat it.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Views through the model at a time.")] = 8,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode; by default one per core but one.", show_default=False),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable recordings above which it fails.")
    ] = 0.05,
    json: Json = None,
) -> None:
    """Features, times and gate weights of a folder, a list or shards; run again after an interruption, it goes on."""
    from .first_checks import check_bundle, check_source

    check_bundle(encoder)
    if "://" not in source:
        check_source(source)
    from dataclasses import asdict

    from ...shards.errors import DataError
    from ..jobs.embedding_job import embed as embed_source
    from ..jobs.embedding_job import rejected_list
    from ..runs.closing_table import print_rejected, print_table, write_json
    from .data_verbs import parse_rates

    try:
        found = embed_source(
            encoder,
            source,
            out,
            hop=hop,
            by_modality=modality_features,
            batch_size=batch_size,
            workers=workers,
            max_rejected=max_rejected,
            rates=parse_rates(rate or []),
        )
    except DataError:
        print_rejected(rejected_list(out))
        raise
    except KeyboardInterrupt:
        typer.echo("stopped: the same command goes on from here", err=True)
        raise
    title = f"{found.windows} pieces of {found.recordings} recordings, {found.width} features each, in {out}"
    rows = [(name, found.present[name], found.weights[name]) for name in found.present]
    print_table(title, ("modality", "share of pieces", "mean gate weight"), rows)
    print_rejected(rejected_list(out))
    write_json(json, asdict(found))
    typer.echo(features_line(out))
