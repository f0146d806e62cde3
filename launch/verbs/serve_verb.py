"""`modalgate serve`: a model behind a local web page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier's bundle, or its run folder.")],
    host: Annotated[str, typer.Option(help="Address to listen at; this machine alone by default.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    max_mb: Annotated[int, typer.Option(min=1, help="The largest upload, in MB of 2^20 bytes.")] = 200,
    queue: Annotated[int, typer.Option(min=0, help="Recordings that may wait while one is scored.")] = 4,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch; all cores but one by default.", show_default=False)
    ] = None,
) -> None:
    """Serve a web page on which a recording is dropped and scored, and the same as JSON."""
    from .first_checks import check_bundle

    check_bundle(model)
    from ..serve.server_process import run_server

    run_server(model, host, port, max_mb=max_mb, queue=queue, threads=threads)
