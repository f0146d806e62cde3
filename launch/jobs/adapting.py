"""A config reduced to the modalities that its clips have."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ...fusion.bundle.bundle import load_bundle
from ...shards.errors import RequestError, choice_error
from ...shards.index.table import Index
from ...shards.modality import modality
from ...tasks.robustness.corruptions import AXES, alters
from ..runs.bundles import any_bundle
from ..runs.logbook import warn
from ..schema import FinetuneConfig, PretrainConfig, StudyConfig
from ..training.device import ranks

Kind = TypeVar("Kind", PretrainConfig, FinetuneConfig, StudyConfig)


def adapt(config: Kind, index: Index, command: Sequence[str] = ()) -> Kind:
    """The config from `adapt_modalities`; prints what was dropped on standard error."""
    config, lines = adapt_modalities(config, index, command)
    if ranks()[0] == 0:
        for line in lines:
            warn(line)
    return config


def adapt_modalities(config: Kind, index: Index, command: Sequence[str] = ()) -> tuple[Kind, list[str]]:
    """The config without the modalities that no clip of `index` has, and lines about what was dropped.

    They are removed from `data.modalities` and from the streams and pairs of pretext tasks. Tasks that then lack
    modalities are dropped. So are rows of a study that use such a modality alone, and corruptions that apply to none
    of the others. An adapted config comes back
    unchanged, without lines. A fine-tuning that starts from an encoder reads that encoder's modalities, and its
    config does not change; a pretraining gets its modalities and its networks.

    Raises `RequestError` if no modality or no task is left, and for a modality on the `command` line that the shards
    do not have, with the nearest name.
    """
    if isinstance(config, FinetuneConfig) and config.encoder:
        return config, []
    if isinstance(config, PretrainConfig) and config.encoder:
        config = _like_encoder(config, config.encoder, index)
    held, wanted = held_modalities(index), config.data.modalities
    typed = any(argument.startswith("data.modalities=") for argument in command)
    for name in wanted:
        if name not in held and typed and name not in index.settings.modalities:
            raise choice_error("modality in these shards", name, held)
    if wanted and not set(wanted) & set(held):
        raise RequestError(
            f"no clip of '{index.folder}' has {' or '.join(wanted)}: they have {', '.join(held) or 'nothing'}; "
            "set data.modalities to some of these"
        )
    kept = [name for name in wanted or held if name in held]
    lines = {name: _absent(name, index) for name in wanted or index.packed if name not in held}
    if kept != (wanted or list(index.packed)):
        config = replace(config, data=replace(config.data, modalities=kept))
    if isinstance(config, PretrainConfig):
        config, more = _suited(config, index, kept, lines)
        return config, [*lines.values(), *more]
    if isinstance(config, StudyConfig):
        config, rows = _with_rows_of(config, kept)
        config, axes = _with_corruptions_of(config, kept)
        return config, [*lines.values(), *rows, *axes]
    return config, list(lines.values())


def _with_rows_of(config: StudyConfig, kept: list[str]) -> tuple[StudyConfig, list[str]]:
    """The config without the rows that use alone a modality outside `kept`, and a line for each of them."""
    gone = {
        name: row.alone for name, row in config.rows.items() if row.alone and modality(row.alone).name not in kept
    }
    if not gone or len(gone) == len(config.rows):
        # A study without rows would compare every mechanism.
        return config, []
    lines = [f"row '{name}' is dropped: its only modality '{alone}' is not used" for name, alone in gone.items()]
    return replace(config, rows={name: row for name, row in config.rows.items() if name not in gone}), lines


def _with_corruptions_of(config: StudyConfig, kept: list[str]) -> tuple[StudyConfig, list[str]]:
    """The config without the held-out corruptions that alter no modality of `kept`, and a line for each of them."""
    # An unknown axis stays, and is refused by its name.
    gone = [axis for axis in config.held_out if axis in AXES and not any(alters(axis, name) for name in kept)]
    lines = [f"held_out '{axis}' is dropped: no modality of this run has it" for axis in gone]
    return replace(config, held_out={a: v for a, v in config.held_out.items() if a not in gone}), lines


def _like_encoder(config: PretrainConfig, place: str, index: Index) -> PretrainConfig:
    """The config with the modalities and networks of the encoder at `place`. Raises `RequestError` if the clips lack
    one of its modalities, or if `data.modalities` names others.
    """
    backbone = load_bundle(any_bundle(Path(place))).backbone
    names, asked, held = list(backbone.modalities), config.data.modalities, held_modalities(index)
    if asked and set(asked) != set(names):
        raise RequestError(
            f"the encoder '{place}' has the modalities {', '.join(names)}, not {', '.join(asked)}: remove "
            "data.modalities, or pretrain without encoder="
        )
    if missing := [name for name in names if name not in held]:
        raise RequestError(
            f"no clip of '{index.folder}' has {' or '.join(missing)}, which the encoder '{place}' needs: they have "
            f"{', '.join(held)}"
        )
    model = replace(backbone.spec, width=backbone.width)
    return replace(config, data=replace(config.data, modalities=names), model=model)


def held_modalities(index: Index) -> list[str]:
    """The modalities that at least one of the index's clips has, in their packed order."""
    return list(index.modalities)


def _suited(
    config: PretrainConfig, index: Index, kept: list[str], lines: dict[str, str]
) -> tuple[PretrainConfig, list[str]]:
    """The config's tasks over the modalities `kept`, and lines about what they lost; modalities in no clip are
    added to `lines`.
    """
    from ...ssl.suiting import suit_task

    held, tasks, more = held_modalities(index), {}, []
    for name, task in config.tasks.items():
        suited = suit_task(name, task.arguments, kept)
        for other in suited.dropped:
            if other not in held:
                lines.setdefault(other, _absent(other, index))
            else:
                more.append(f"task '{name}' is trained without '{other}', which is not in data.modalities")
        if suited.problem:
            more.append(f"task '{name}' is dropped: {suited.problem}")
        else:
            tasks[name] = replace(task, arguments=suited.arguments)
    if config.tasks and not tasks:
        raise RequestError(
            f"none of the tasks {', '.join(config.tasks)} works on the clips of '{index.folder}' with only "
            f"{', '.join(kept)}: give a task that works with one modality, "
            "such as clip_order or across_time"
        )
    return (config if tasks == config.tasks else replace(config, tasks=tasks)), more


def _absent(name: str, index: Index) -> str:
    return f"'{name}' is in no clip of '{index.folder}': dropped"
