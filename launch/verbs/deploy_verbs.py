"""`modalgate export`, `push`, `embed`, `predict` and `serve`: use a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...shards.media.pack_settings import PackSettings
from ..runs.next_step import model_line, prediction_line
from .shared_options import Encoder, Hop, Json, MaxSeconds, Model, Overwrite, Rate, parse_rates

if TYPE_CHECKING:
    from ..predict.prediction_lines import Predicted


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder of `pretrain` or `finetune`.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="A new folder; for other forms a .onnx, .pt2 or .safetensors file.")
    ],
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="bundle, onnx, or torch (torch.export).")
    ] = "bundle",
    encoder_only: Annotated[
        bool, typer.Option("--encoder-only", help="Write only the encoder of a classifier, as a graph.")
    ] = False,
    shards: Annotated[
        Path | None, typer.Option(metavar="SHARDS", help="Compare the graph with the model on these clips.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Label column of --shards, for the accuracy of int8. Default: `label`."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="With onnx: also write a quantised graph and measure its cost.")
    ] = False,
    modality: Annotated[
        str | None, typer.Option(metavar="NAME", help="Write only this modality's network, for timm or torchvision.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="SPDX", help="Licence for the model card, such as CC-BY-4.0.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Write a run's model as a bundle, a graph or one network."""
    from ..jobs.first_checks import check_export, check_shards, check_trained

    check_export(form, modality, int8, encoder_only, shards, label, licence)
    check_trained(run)
    if shards is not None:
        check_shards(shards)
    from ..export.export_job import GraphRequest, check_free, export_model, print_written

    graph = form != "bundle"
    check_free(out, graph, int8, overwrite)
    request = GraphRequest(form, encoder_only, int8, shards, label) if graph else None
    print_written(run, export_model(run, out, request, modality, licence), request, json)


def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder written by `modalgate export`.")],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="A model repository. It is created if it does not exist.")
    ],
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch. Default: main.", show_default=False)
    ] = None,
    private: Annotated[
        bool, typer.Option("--private/--public", help="Whether only you can see a new repository.")
    ] = True,
    json: Json = None,
) -> None:
    """Upload a bundle to the Hugging Face Hub, private unless --public.

    Local paths are removed. Other commands then accept hf://OWNER/NAME as a bundle.
    """
    from ...fusion.bundle.hub import Repository
    from ..jobs.first_checks import check_bundle

    place = Repository(repository.removeprefix("hf://"), revision)
    check_bundle(bundle)
    from ...fusion.bundle.bundle import load_bundle, push_bundle
    from ..runs.closing_table import write_json

    commit = push_bundle(bundle, place, private=private)
    typer.echo(f"{bundle} is at {commit}\nload_bundle('{place}') or load_encoder('{place}') loads it")
    write_json(json, {"repository": place.name, "revision": revision, "commit": commit})
    typer.echo(model_line(str(place), load_bundle(bundle).task is not None))


def embed(
    encoder: Encoder,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A folder of media, a list (.txt, .csv), a media file, or shards."),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new file: .parquet or .npz.")],
    hop: Hop = None,
    modality_features: Annotated[
        bool, typer.Option("--modality-features", help="Also write each modality's features from before the fusion.")
    ] = False,
    rate: Rate = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Views per batch.")] = 8,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Processes that decode. Default: all cores but one.", show_default=False),
    ] = None,
    max_rejected: Annotated[
        float, typer.Option(min=0, max=1, help="Fail above this share of unreadable recordings.")
    ] = 0.05,
    max_seconds: MaxSeconds = PackSettings.max_seconds,
    overwrite: Overwrite = False,
    json: Json = None,
) -> None:
    """Write features of a folder, a list or shards. Rerun to resume.

    Each piece of a recording gets a row: its features, times and gate weights.
    """
    from ..jobs.first_checks import check_bundle, check_source

    check_bundle(encoder)
    if "://" not in source:
        check_source(source)
    from ...shards.errors import DataError
    from ..jobs.embedding_job import embed as embed_source
    from ..jobs.embedding_job import rejected_list
    from ..runs.closing_table import print_rejected
    from .deployment_tables import print_embedded

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
            rates=parse_rates(rate),
            overwrite=overwrite,
            max_seconds=max_seconds,
        )
    except DataError:
        print_rejected(rejected_list(out))
        raise
    except KeyboardInterrupt:
        typer.echo("stopped: rerun the same command to resume", err=True)
        raise
    print_embedded(out, rejected_list(out), found, json)


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A classifier's bundle or run folder, or an exported .onnx file."),
    ],
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A media file, a folder of them, shards, a webcam's number, or a URL."),
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="MODALITY=FILE", help="Another stream of the recording: depth=FILE. Repeatable."
        ),
    ] = None,
    rate: Rate = None,
    hop: Hop = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the JSON lines here and print a table at the end."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of --out and --video.")] = False,
    png: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw scores and gate weights over time; replaces an earlier picture."),
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the film with scores, gates and alarms drawn on it.")
    ] = None,
    alarm: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Class of the alarms. Default: the positive class.", show_default=False),
    ] = None,
    on: Annotated[
        float | None,
        typer.Option(help="Score that starts an alarm. Default: as validation chose, or 0.5.", show_default=False),
    ] = None,
    off: Annotated[
        float | None, typer.Option(help="Score below which an alarm ends. Default: 0.8 of --on.", show_default=False)
    ] = None,
    smooth: Annotated[float, typer.Option(min=0.0, help="Average the score of alarms over these seconds.")] = 2.0,
    smoothing: Annotated[str, typer.Option(help="mean, or exponential with --smooth as time constant.")] = "mean",
    min_on: Annotated[float, typer.Option(min=0.0, help="Seconds of a high score before an alarm starts.")] = 0.0,
    min_off: Annotated[float, typer.Option(min=0.0, help="Seconds of a low score before an alarm ends.")] = 0.0,
    max_seconds: MaxSeconds = PackSettings.max_seconds,
    max_lag: Annotated[float, typer.Option(min=0.1, help="Of a stream: drop windows this many seconds late.")] = 5.0,
    retries: Annotated[int, typer.Option(min=0, help="Of a stream: attempts in a row to reconnect.")] = 5,
    timeout: Annotated[float, typer.Option(min=0.1, help="Of a stream: seconds to wait for data.")] = 10.0,
    json: Json = None,
) -> None:
    """Score a recording or stream: one JSON line per piece.

    The lines hold class scores, gate weights and alarms.
    """
    from ...shards.errors import choice_error
    from ..jobs.first_checks import check_scorer, check_source

    check_source(source)
    check_scorer(model)
    from ...shards.live.live_source import Patience
    from ..predict.predicting import parse_beside, predict_source
    from ..predict.prediction_request import AlarmRequest, PredictRequest
    from ..runs.closing_table import write_json
    from .deployment_tables import print_predicted

    if smoothing not in ("mean", "exponential"):
        raise choice_error("smoothing", smoothing, ("mean", "exponential"))
    request = PredictRequest(
        parse_beside(beside or []),
        parse_rates(rate),
        hop,
        out,
        png,
        video,
        AlarmRequest(alarm, on, off, smooth, smoothing, min_on, min_off),
        Patience(max_lag, retries, timeout),
        overwrite,
        max_seconds,
    )
    predicted: list[Predicted] = []
    try:
        # Keeps what was predicted before a fault or an interruption.
        predicted.extend(predict_source(model, source, request))
    finally:
        if predicted:
            if out is not None:
                print_predicted(predicted, out)
            write_json(json, {"recordings": [entry.figures() for entry in predicted]})
    if out is not None:
        typer.echo(prediction_line(model, out))


def serve(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on. The default is this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8000,
    max_mb: Annotated[int, typer.Option(min=1, help="Largest upload, in MB of 2^20 bytes.")] = 200,
    max_seconds: Annotated[float, typer.Option(min=1, help="Longest recording, in seconds.")] = 3600.0,
    max_memory: Annotated[
        int, typer.Option(min=64, help="Memory that decoding one recording may take, in MB of 2^20 bytes.")
    ] = 1024,
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds in which a recording must arrive, and in which it is scored.")
    ] = 600.0,
    queue: Annotated[int, typer.Option(min=0, help="Recordings that may wait while one is scored.")] = 4,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of torch. Default: all cores but one.", show_default=False)
    ] = None,
) -> None:
    """Serve a web page and a JSON API that score recordings."""
    from ..jobs.first_checks import check_bundle

    check_bundle(model)
    from ..serve.server_process import run_server

    run_server(
        model,
        host,
        port,
        max_mb=max_mb,
        queue=queue,
        threads=threads,
        max_seconds=max_seconds,
        deadline=deadline,
        max_memory=max_memory,
    )
