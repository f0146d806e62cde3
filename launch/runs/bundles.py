"""The bundles of a run: one, or one per split and one trained on all clips."""

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...fusion.bundle.bundle_files import FACTS, LAYOUTS, local_bundle
from ...shards.errors import RequestError
from ...shards.index.table import Index
from ...tasks.report.provenance import FINAL
from .folder import read_settings

if TYPE_CHECKING:
    from ...fusion.bundle.bundle import Bundle
    from ...tasks.splits.splits import Split

# Keys of a bundle's provenance: the digest of the test clips that it has not seen, and the fingerprint of the shards
# on whose labelled clips a final model was trained.
UNSEEN, SEEN = "unseen", "seen"
# The bundles that this process has said are older than their run.
_told = set[Path]()


def find_bundle(path: Path, quiet: bool = False) -> Path:
    """The bundle folder to use: `path` itself; of a run its final model, else its only one, else that of its first
    split.

    Of `hf://owner/name[@revision]` it is the folder in the hub's cache. If one of several splits is chosen, a line on
    standard error says which, and how to make a final model. Another says if the run's training was resumed later and
    has not ended. `quiet` suppresses both when a path is only checked.
    """
    path = local_bundle(path)
    for folder in (path / FINAL / "encoder", path / "encoder"):
        if folder.is_dir():
            return folder if quiet else current(folder)
    if divided := _divided(path):
        chosen = divided[0]
        if not quiet:
            print(
                f"note: '{path}' has a model for each of its {len(divided)} splits and none of all clips: using "
                f"{chosen.name}, which has not seen its own test clips; for a final model: {final_command(path)}",
                file=sys.stderr,
            )
        return chosen / "encoder" if quiet else current(chosen / "encoder")
    return path if quiet else current(path)


def current(bundle: Path) -> Path:
    """`bundle`; prints a line if it is older than its run: the training was resumed later and has not ended."""
    found = steps_behind(bundle)
    if found is not None and bundle not in _told:
        _told.add(bundle)
        print(
            f"warning: '{bundle}' is from step {found[0]}, but its training was resumed to reach step {found[1]} and "
            "has not ended: this older model is used; to finish the newer one, resume the training with --resume",
            file=sys.stderr,
        )
    return bundle


def steps_behind(bundle: Path) -> tuple[int, int] | None:
    """The step that the bundle of a run is from, and the later one that its training was to reach; None if it is the
    run's last model.
    """
    run = bundle.parent
    try:
        settings = read_settings(run / "config.yaml")
        made = int(json.loads((bundle / FACTS).read_text(encoding="utf-8"))["provenance"]["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not in a run; what is damaged is reported when it is loaded
    kind, train = settings.get("kind"), settings.get("train") or {}
    if kind not in ("pretrain", "finetune"):
        return None
    folders = (run / "checkpoints").glob("step-*")
    reached = max((int(name) for name in (path.name[5:] for path in folders) if name.isdigit()), default=0)
    # A fine-tuning records its epochs, not their steps; its final model is as long as its folds.
    counted = kind == "pretrain" or (run.name != FINAL and train.get("epochs") is None)
    goal = max(reached, int(train.get("steps") or 0) if counted else 0)
    return (made, goal) if goal > made else None


def measured_bundle(path: Path, index: Index) -> "Bundle":
    """The model at `path` to measure on clips of `index`, or to start another model from.

    Of a run it is the model that the run evaluated; of a divided run, the final model. Raises `RequestError` for a
    run that has only one model per split, and for a final model that was trained on these shards.
    """
    from ...fusion.bundle.bundle import load_bundle  # torch is imported with the first model

    path = local_bundle(path)
    if (path / "encoder").is_dir():
        path = path / "encoder"
    elif divided := _divided(path):
        if not (path / FINAL / "encoder").is_dir():
            names = ", ".join(folder.name for folder in divided)
            raise RequestError(
                f"'{path}' has a model for each of its splits ({names}): give one of them, such as {divided[0]}"
            )
        path = path / FINAL / "encoder"
    bundle = load_bundle(current(path))
    if bundle.provenance.get(SEEN) == index.fingerprint:
        raise RequestError(
            f"'{path}' is a final model, trained on all labelled clips of '{index.folder}': see its run for "
            "out-of-fold scores, or give other shards"
        )
    return bundle


def any_bundle(path: Path) -> Path:
    """The bundle folder at `path`; of a run the evaluated one, or that of the first split.

    Enough to read what all models of a run share.
    """
    path = local_bundle(path)
    if (path / "encoder").is_dir():
        return path / "encoder"
    divided = _divided(path)
    return divided[0] / "encoder" if divided else find_bundle(path)


def find_model(path: Path, quiet: bool = False) -> Path:
    """The bundle at `path` or on the hub, or the one to use of the run there. Raises `RequestError` if there is none.

    `quiet`: see `find_bundle`.
    """
    path = local_bundle(path)
    if any((path / name).is_file() for name in LAYOUTS):
        return path
    if not path.is_dir():
        raise RequestError(f"no run folder at '{path}': give a run of `modalgate pretrain` or `finetune`")
    found = find_bundle(path, quiet)
    if found == path:
        raise RequestError(f"'{path}' holds no trained model: has its training finished?")
    return found


def split_bundle(path: Path, index: Index, split: "Split") -> "Bundle":
    """The bundle of a split in a run that has one per split, else the one at `path`.

    Raises `RequestError` if the run has none for this split, or if the encoder has seen clips that the split tests:
    their scores would be too good.
    """
    return unseen_bundle(path, index, split.name, tested_digest(index, split))


def unseen_bundle(path: Path, index: Index, name: str, digest: str) -> "Bundle":
    """The bundle of split `name` at `path`, which has not seen the test clips with this `digest`; see
    `split_bundle`.
    """
    path = local_bundle(path)
    if divided := _divided(path):
        if path / name not in divided:
            names = ", ".join(folder.name for folder in divided)
            raise RequestError(
                f"'{path}' has encoders for the splits {names}, none for {name}: pretrain that split too"
            )
        path = path / name
    bundle = measured_bundle(path, index)
    unseen = bundle.provenance.get(UNSEEN)
    if unseen is not None and unseen != digest:
        raise RequestError(
            f"the encoder '{path}' has seen clips that {name} tests: give the folds, group, "
            "label, classes and seed that it was pretrained with, or pretrain it with these"
        )
    return bundle


def undivided_bundle(path: Path) -> "Bundle":
    """The bundle that a model of all clips starts from: the one at `path`, or the final one of a divided run.

    Raises `RequestError`, with the command that makes it, for a run that only has encoders per split.
    """
    from ...fusion.bundle.bundle import load_bundle

    path = local_bundle(path)
    if not _divided(path):
        return load_bundle(current(any_bundle(path)))
    folder = path / FINAL / "encoder"
    if not folder.is_dir():
        raise RequestError(
            f"'{path}' has an encoder for each of its splits and none of all clips, which --final needs: "
            f"make it with `{final_command(path)}`, or remove --final"
        )
    return load_bundle(current(folder))


def final_command(run: Path) -> str:
    """The command that adds a model of all clips to a divided run."""
    settings = read_settings(run / "config.yaml")
    # A name without a slash would mean a shipped config.
    place = str(run) if "/" in str(run) else f"./{run}"
    if settings.get("kind") == "finetune":
        moved = (Path(settings.get("out", "")) / settings.get("name", "")).resolve() != run.resolve()
        where = [f"out={run.resolve().parent}", f"name={run.resolve().name}"] if moved else []
        return shlex.join(["modalgate", "finetune", place, *where, "--final", "--resume"])
    data: dict[str, Any] = settings.get("data") or {}
    undivided = {"folds": 0, "fold": None, "leave_one_out": False, "lists": [], "split": None}
    changed = [f"data.{key}={json.dumps(value)}" for key, value in undivided.items() if data.get(key, value) != value]
    return shlex.join(["modalgate", "pretrain", place, *changed, f"out={run}", f"name={FINAL}"])


def tested_digest(index: Index, split: "Split") -> str:
    """Digest of a split's test clips; an encoder's bundle records the digest of the clips that it has not seen."""
    keys = sorted(index.samples[number].key for number in split.test.tolist())
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def _divided(path: Path) -> list[Path]:
    """The folders of a divided run's splits; empty for other folders."""
    if (path / "encoder").is_dir() or not (path / "config.yaml").is_file():
        return []
    return [encoder.parent for encoder in sorted(path.glob("*/encoder")) if encoder.parent.name != FINAL]


def run_of(path: Path) -> Path | None:
    """The run folder at `path` or around a bundle; None for an exported bundle, which is not changed."""
    return next((folder for folder in (path, path.parent) if (folder / "config.yaml").is_file()), None)


def cache_folder(path: Path) -> Path | None:
    """RUN/features of the run around a bundle."""
    run = run_of(path)
    return None if run is None else run / "features"
