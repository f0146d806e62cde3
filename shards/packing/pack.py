"""Pack a folder of recordings into WebDataset shards with an index."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from ..errors import RequestError, choice_error
from ..index.table import INDEX_NAME, Index, load_index
from ..index.unreadable import UNREADABLE, reason_of
from ..media.pack_settings import PackSettings, difference
from ..modality import MODALITIES, declared_among, modality
from .encode import encode_source
from .engine import ENGINES
from .packed_sources import changed_files, stamps_of
from .rejected import KILLED, Rejected, judge_rejected, list_rejected, printable
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
    repack: bool = False,
) -> Index:
    """Packs every recording in `source` into shuffled shards in `out`, and returns their index.

    - `settings`: `modalities` may be empty: then everything the recordings can have is packed, except flow of depth.
    - `labels`: label file. Default: `labels.csv` in `source`. Recordings that it does not name get empty labels.
    - `labelled_only`: packs only the recordings that the label file names.
    - `max_rejected`: largest share of unreadable recordings. They are skipped and listed in `rejected.jsonl`.
    - `progress`: called with (done, total, rejected) at the start and after each recording.
    - `engine`, `workers`: a key of `ENGINES`, and its number of processes.
    - `repack`: replaces a finished packing in `out`, whatever its settings. Its shards stay until the new ones are
      encoded.

    `out` must be absent, empty, or hold a packing with the same settings. An interrupted packing is resumed; a
    finished one is left unchanged. The bytes do not depend on `engine`, `workers` or interruptions.

    Raises `RequestError` for an unknown name, for nothing to pack, for an `out` that holds something else or cannot
    be written, and for a finished packing of files that have changed since, by size or modification time. Raises
    `DataError` if more than `max_rejected` of the recordings are unreadable.
    """
    for name in settings.modalities:
        modality(name)
    if engine not in ENGINES:
        raise choice_error("engine", engine, ENGINES)
    if labelled_only and labels is None and not (source / LABEL_FILE).is_file():
        raise RequestError(f"'{source}' has no {LABEL_FILE}: give --labels CSV to say which recordings are labelled")
    found = find_recordings(source, labels, labelled_only)
    sources = found.sources
    settings = _choose_modalities(sources, settings)
    finished = (out / INDEX_NAME).is_file()
    if finished and not repack:
        return _finished(out, settings, found)
    # Taken first: a file that changes while it is read is noticed by the next call.
    stamps = stamps_of(sources)
    try:
        with open_spool(out, settings, beside=finished) as spool:
            waiting = [item for item in sources if not holds(spool, item)]
            done, rejected = len(sources) - len(waiting), dict[int, Rejected]()
            work = partial(encode_into, spool, settings)
            if progress is not None:
                progress(done, len(sources), 0)
            for number, reason in ENGINES[engine](work, waiting, workers):
                done += 1
                # None: the process died. Empty reason: the recording was packed.
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
            index = assemble(out, clips, settings, fingerprint(sources), stamps)
    except OSError as error:
        raise RequestError(
            f"cannot write to '{out}' ({error.strerror or error}): fix this, then rerun the same command to resume"
        ) from error
    remove_spool(out)
    return index


def _finished(out: Path, settings: PackSettings, found: Recordings) -> Index:
    """Returns the index of a finished packing. Raises `RequestError` if it was made from another request."""
    index = load_index(out)
    named = difference(asdict(index.settings), asdict(settings))
    if not named and index.source != fingerprint(found.sources):
        if index.source == fingerprint(found.sources[: found.named]):
            raise RequestError(
                f"'{out}' holds only the {found.named} labelled recordings, and there are "
                f"{len(found.sources) - found.named} more: add --labelled-only to keep these shards, or give a new "
                "folder to pack all"
            )
        named = "other recordings, labels or rates"
    if named:
        raise RequestError(
            f"'{out}' already holds shards with {named}: give an empty or new folder, or add --repack to replace them"
        )
    changed = changed_files(index, found.sources)
    if changed:
        others = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise RequestError(
            f"'{printable(changed[0])}'{others} has changed since '{out}' was packed: add --repack to pack again, or "
            "give a new folder"
        )
    remove_spool(out)
    return index


def _choose_modalities(sources: list[Source], settings: PackSettings) -> PackSettings:
    """Fills in default modalities. Raises `RequestError` for one that no recording can have."""
    held = {kind for source in sources for kind in source.files}
    usual = held - {"video"} | ({"rgb", "flow", "audio"} if "video" in held else set())
    possible = usual | {name for name, entry in MODALITIES.items() if entry.flow_of in usual}
    for name in settings.modalities:
        if name not in possible:
            raise RequestError(f"no recording has modality '{name}' (they can have: {', '.join(sorted(possible))})")
    chosen = settings.modalities or tuple(name for name in MODALITIES if name in usual)
    return replace(settings, modalities=chosen, declared=declared_among(chosen))


def encode_into(spool: Path, settings: PackSettings, source: Source) -> str:
    """Encodes one recording into the spool. Returns the reason if it cannot be packed, else an empty string.

    Raises `OSError` if the spool cannot be written.
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
        # Outside the `try`: a full disk is not a fault of the recording.
        if clip is None:
            break
        writer.add(clip)
        count += 1
    if not count:
        writer.discard()
        return f"it has none of {', '.join(settings.modalities)}"
    writer.close()
    return ""
