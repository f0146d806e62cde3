"""Wrong requests found from paths, names and columns, before a slow library is imported."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...fusion.bundle.bundle_files import facts_path
from ...fusion.bundle.hub import find_repository
from ...fusion.own_classes import check_path, is_path
from ...shards.errors import RequestError
from ...shards.index.labels import label_column
from ...shards.index.location import locate
from ...shards.index.table import load_index
from ...shards.live.address import find_address
from ..config.source_names import FUSIONS, TASKS, check_registered
from ..runs.bundles import any_bundle, find_bundle, find_model
from ..runs.folder import check_free, check_there, run_folder

if TYPE_CHECKING:
    from ..schema import Config


def check_shards(place: Path | str | Sequence[str | Path], label: str | None = None) -> None:
    """Raises what `load_index` raises for local folders, and `label_column` for a `label`.

    Shards behind a URL are not read twice.
    """
    places = [place] if isinstance(place, str | Path) else place
    if all(isinstance(locate(one), Path) for one in places):
        index = load_index(place)
        if label is not None:
            label_column(index, label)


def check_bundle(place: Path | str, split: bool = False) -> None:
    """Raises `RequestError` if `place` holds no bundle; `split`: a run with one per split is enough.

    Bundles on the hub are not fetched.
    """
    if find_repository(place) is None:
        facts_path(any_bundle(Path(place)) if split else find_bundle(Path(place), quiet=True))


def check_trained(run: Path) -> None:
    """Raises `RequestError` if `run` is neither a bundle nor a finished run."""
    if find_repository(run) is None:
        find_model(run, quiet=True)


def check_scorer(model: Path) -> None:
    """Raises `RequestError` if `model` is neither an ONNX file nor a bundle."""
    if model.suffix.lower() != ".onnx":
        check_bundle(model)
    elif not model.is_file():
        raise RequestError(f"no file at '{model}'")


def check_export(
    form: str,
    modality: str | None,
    int8: bool,
    encoder_only: bool,
    shards: Path | None,
    label: str | None,
    licence: str | None,
) -> None:
    """Raises `RequestError` for options of `export` that do not go together."""
    graph = form != "bundle"
    for given, needed, problem in (
        (graph, modality is None, "--modality writes a state dict: remove --format"),
        (int8, form == "onnx", "--int8 quantises an ONNX graph: add --format onnx"),
        (encoder_only, graph, "--encoder-only is for graphs: add --format onnx or torch"),
        (shards is not None, graph, "--shards compares graphs: add --format onnx or torch"),
        (label is not None, int8 and shards is not None, "--label is for --int8 on --shards: add both"),
        (licence is not None, modality is None, "--license needs a model card, which --modality does not write"),
    ):
        if given and not needed:
            raise RequestError(problem)


def check_source(source: str) -> None:
    """Raises `RequestError` if `source` is neither a file, a folder nor the address of a stream."""
    if find_address(source) is None and not Path(source).exists():
        raise RequestError(f"no file at '{source}'")


def check_recordings(folder: Path, table: Path | None = None) -> None:
    """Raises `RequestError` if the folder or its table does not exist."""
    if not folder.is_dir():
        raise RequestError(f"no folder at '{folder}': give a folder of recordings")
    if table is not None and not table.is_file():
        raise RequestError(f"no table at '{table}': give a CSV file")


def check_config(config: "Config", resume: bool) -> None:
    """Raises `RequestError` if the config names missing shards, labels or encoders, or a run folder in use.

    To `resume`, the run must exist.
    """
    from ..schema import PretrainConfig, StudyConfig

    data = config.data
    labelled = not isinstance(config, PretrainConfig) and not data.labels
    check_shards(data.shards, data.label if labelled else None)
    if isinstance(config, PretrainConfig):
        start = config.encoder
        if config.probe is not None and config.probe.shards:
            check_shards(config.probe.shards)
    else:
        start = config.pretrained if isinstance(config, StudyConfig) else config.encoder
    if start:
        check_bundle(start, split=True)
    _check_names(config)
    (check_there if resume else check_free)(run_folder(config))


def _check_names(config: "Config") -> None:
    """Raises the errors of the registries for unknown tasks, fusions and arguments, and for a missing package."""
    from ..schema import PretrainConfig, StudyConfig

    if isinstance(config, PretrainConfig):
        if not config.tasks:
            raise RequestError("config key 'tasks' is empty: give at least one pretext task")
        for name, task in config.tasks.items():
            _check_name("pretext task", "task", TASKS, name, task.arguments)
    if config.model is not None:
        _check_name("fusion", "fusion", FUSIONS, config.model.fusion, config.model.fusion_arguments)
        for encoder in config.model.encoders.values():
            if encoder.model is not None and is_path(encoder.model):
                check_path(encoder.model)
    if isinstance(config, StudyConfig):
        for name, row in config.rows.items():
            _check_name(f"fusion of row '{name}'", "fusion", FUSIONS, row.fusion, row.arguments)


def _check_name(what: str, short: str, table: tuple[str, str], name: str, arguments: Mapping[str, Any]) -> None:
    if is_path(name):
        check_path(name)
    else:
        check_registered(what, short, table, name, list(arguments))


def check_early(config: Any) -> None:
    """Raises `RequestError`, with the key, for unknown tasks, fusions and arguments of a config.

    `config` may be partial: missing keys are skipped.
    """
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.create(config), resolve=True)
    model = content.get("model") or {}
    entries: list[tuple[str, str, str, tuple[str, str], Any, Any]] = [
        (f"tasks.{name}", "pretext task", "task", TASKS, name, task.get("arguments"))
        for name, task in (content.get("tasks") or {}).items()
    ]
    entries.append(("model.fusion", "fusion", "fusion", FUSIONS, model.get("fusion"), model.get("fusion_arguments")))
    for name, row in (content.get("rows") or {}).items():
        found = row.get("fusion"), row.get("arguments")
        entries.append((f"rows.{name}.fusion", "fusion", "fusion", FUSIONS, *found))
    for key, what, short, table, name, arguments in entries:
        if name is None or name == "???" or is_path(name):
            continue
        try:
            check_registered(what, short, table, name, list(arguments or {}))
        except RequestError as error:
            raise RequestError(f"config key '{key}': {error}") from error


def plain_rates(rate: Mapping[str, float] | None) -> dict[str, float]:
    """Rates in Hz by kind of file; `rgb` means `video`."""
    return {"video" if name == "rgb" else name: float(hertz) for name, hertz in (rate or {}).items()}
