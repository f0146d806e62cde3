"""Options that several commands have, and the values of options that need parsing."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from ...shards.index.whole_file import FIGURES, keep_others
from ...shards.media.region import Region


def replacing(option: str, form: str) -> Callable[[Path | None], Path | None]:
    """A check of an `option` whose file is a summary, before the work; see `keep_others`."""

    def check(path: Path | None) -> Path | None:
        if path is not None:
            keep_others(path, option, form)
        return path

    return check


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the figures to this file; replaces earlier ones.",
        callback=replacing("--json", FIGURES),
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Rate = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=HZ",
        help="Rate of frame folders, arrays or signals, such as video=30. Repeatable.",
        show_default=False,
    ),
]
Declare = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=KIND",
        help="Another modality, such as thermal=video, mic2=audio or radar=signal:2@20 (channels, Hz). Repeatable.",
        show_default=False,
    ),
]
MaxSeconds = Annotated[float, typer.Option(min=1, help="Refuse longer recordings. In seconds.")]
Hop = Annotated[
    float | None,
    typer.Option(min=0.01, help="Seconds between pieces. Default: as evaluated.", show_default=False),
]
Label = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column to learn. Default: `label` if it exists.", show_default=False),
]
LabelledShards = Annotated[
    list[str],
    typer.Argument(metavar="SHARDS...", help="Folders of labelled clips, written by `modalgate pack`."),
]
Views = Annotated[int | None, typer.Option(min=1, help="Uniform windows averaged per clip.", show_default=False)]
Encoder = Annotated[
    Path, typer.Argument(metavar="ENCODER", help="A bundle, a run folder that holds one, or hf://OWNER/NAME.")
]
Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A classifier's bundle or run folder.")]


def parse_rates(given: list[str] | None) -> dict[str, float]:
    """`depth=30` as {"depth": 30.0}; `rgb` is another name of `video`. Raises `RequestError` for a wrong value."""
    from ...shards.errors import RequestError, choice_error
    from ...shards.modality import MODALITIES

    rates = {}
    for text in given or []:
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


def declare_modalities(given: list[str] | None) -> None:
    """Makes the modalities of `--declare` known. Raises `RequestError` for another form or a taken name."""
    from ...shards.modality import declare, plain_modality

    for text in given or []:
        declare(plain_modality(text))


def parse_region(given: str) -> Region | None:
    """`0.25,0.5,0.5,0.5` as left, top, width and height; None if empty. Raises `RequestError` for a wrong value."""
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


def names_in(given: str) -> list[str]:
    """`a, b` as ["a", "b"], each name once."""
    return list(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
