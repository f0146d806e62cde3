"""From a folder of recordings to WebDataset shards with an index."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..errors import RequestError, choice_error
from ..index.table import INDEX_NAME, Index, load_index
from ..media.pack_settings import PackSettings, difference
from ..modality import MODALITIES, modality
from .encode import encode_source
from .engine import ENGINES
from .rejected import KILLED, UNREADABLE, Rejected, judge_rejected, list_rejected, printable, reason_of
from .sources import LABEL_FILE, Recordings, Source, find_recordings, fingerprint
from .spool import SpoolWriter, holds, open_spool, read_clips, remove_spool
from .write_shards import assemble

REJECTED_NAME = "rejected.jsonl"
Progress = Callable[[int, int, int], None]


def pack(
    source: Path,
    out: Path,
    settings: PackSettings,
    labels: Path | None = None,
    workers: int | None = None,
    max_rejected: float = 0.05,
    progress: Progress | None = None,
    engine: str = "local",
    labelled_only: bool = False,
) -> Index:
    """Packs every recording below `source` into shards in `out`, shuffled, and returns their index.

    Recordings that the label file does not name have empty labels; with `labelled_only` they are not packed.
    Without `settings.modalities`, all that the recordings can have are packed, but of flow only that of RGB.
    `progress(done, total, rejected)` is told at the start and after each recording. Unreadable recordings are skipped
    and listed in `rejected.jsonl`; above the share `max_rejected` of them a `DataError` is raised. `out` must be
    absent, empty, or hold a packing of the same settings (`RequestError` names the difference): an interrupted one
    goes on with the recordings that are missing, a finished one is left as it is. The bytes depend neither on
    `workers` and `engine` (`ENGINES`) nor on interruptions.
    """
    for name in settings.modalities:
        modality(name)
    if engine not in ENGINES:
        raise choice_error("engine", engine, ENGINES)
    if labelled_only and labels is None and not (source / LABEL_FILE).is_file():
        raise RequestError(f"'{source}' holds no {LABEL_FILE} that says what is labelled: give --labels CSV")
    found = find_recordings(source, labels, labelled_only)
    sources = found.sources
    settings = _choose_modalities(sources, settings)
    if (out / INDEX_NAME).is_file():
        return _finished(out, settings, found)
    try:
        with open_spool(out, settings) as spool:
            waiting = [item for item in sources if not holds(spool, item)]
            done, rejected = len(sources) - len(waiting), dict[int, Rejected]()
            work = partial(encode_into, spool, settings)
            if progress is not None:
                progress(done, len(sources), 0)
            for number, reason in ENGINES[engine](work, waiting, workers):
                done += 1
                # None is a process that died; an empty reason is a recording that was packed.
                if reason is None:
                    reason = KILLED
                if reason:
                    rejected[number] = Rejected(printable(waiting[number].path), reason)
                if progress is not None:
                    progress(done, len(sources), len(rejected))
            listed = [rejected[number] for number in sorted(rejected)]
            list_rejected(out / REJECTED_NAME, listed)
            judge_rejected(listed, len(sources), max_rejected, out / REJECTED_NAME, "packed")
            lost = {waiting[number].key for number in rejected}
            clips = [clip for item in sources if item.key not in lost for clip in read_clips(spool, item)]
            index = assemble(out, clips, settings, fingerprint(sources))
    except OSError as error:
        raise RequestError(
            f"cannot write in '{out}' ({error.strerror or error}): put that right and run the same command again, "
            "it goes on where it stopped"
        ) from error
    remove_spool(out)
    return index


def _finished(out: Path, settings: PackSettings, found: Recordings) -> Index:
    """What an earlier run made of the same request."""
    index = load_index(out)
    named = difference(asdict(index.settings), asdict(settings))
    if not named and index.source != fingerprint(found.sources):
        if index.source == fingerprint(found.sources[: found.named]):
            raise RequestError(
                f"'{out}' holds the {found.named} labelled recordings only, and there are "
                f"{len(found.sources) - found.named} more: add --labelled-only to keep these shards, or give a new "
                "folder to pack all"
            )
        named = "other recordings, labels or rates"
    if named:
        raise RequestError(f"'{out}' already holds shards with {named}: give an empty or new folder for the shards")
    remove_spool(out)
    return index


def _choose_modalities(sources: list[Source], settings: PackSettings) -> PackSettings:
    """Those asked for, or all there can be but flow of depth. One that no recording can have is a slip."""
    held = {kind for source in sources for kind in source.files}
    usual = held - {"video"} | ({"rgb", "flow", "audio"} if "video" in held else set())
    possible = usual | {name for name, entry in MODALITIES.items() if entry.flow_of in usual}
    for name in settings.modalities:
        if name not in possible:
            raise RequestError(f"no recording has modality '{name}' (they can have: {', '.join(sorted(possible))})")
    return replace(settings, modalities=settings.modalities or tuple(name for name in MODALITIES if name in usual))


def encode_into(spool: Path, settings: PackSettings, source: Source) -> str:
    """Encodes one recording into the spool; returns the reason where it cannot be packed, else an empty text.

    Raises `OSError` where the spool cannot be written.
    """
    if source.problem:
        return source.problem
    writer, clips, count = SpoolWriter(spool, source), encode_source(source, settings), 0
    while True:
        try:
            clip = next(clips, None)
        except UNREADABLE as error:
            writer.discard()
            return reason_of(error)
        # Outside of the above: a full disk is no fault of the recording.
        if clip is None:
            break
        writer.add(clip)
        count += 1
    if not count:
        writer.discard()
        return f"it has none of {', '.join(settings.modalities)}"
    writer.close()
    return ""
