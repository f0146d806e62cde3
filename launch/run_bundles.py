"""Where the bundles of a run lie: one, or one for each split that it was trained on."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..fusion.layout import LAYOUTS, local_bundle
from ..shards.errors import RequestError
from ..shards.index import Index

if TYPE_CHECKING:
    from ..fusion.bundle import Bundle
    from ..tasks.splits import Split

# Of a bundle's provenance: the digest of the test clips that it was kept from.
UNSEEN = "unseen"


def find_bundle(path: Path) -> Path:
    """A bundle folder, the one in a run folder, or, of `hf://owner/name[@revision]`, the one in the hub's cache.

    Raises `RequestError` for a run that has one for each of its splits.
    """
    path = local_bundle(path)
    if (path / "encoder").is_dir():
        return path / "encoder"
    if divided := _divided(path):
        names = ", ".join(folder.name for folder in divided)
        raise RequestError(f"'{path}' has a model for each of its splits ({names}): give one, such as {divided[0]}")
    return path


def any_bundle(path: Path) -> Path:
    """`find_bundle(path)`, or the first of a run that has one for each of its splits."""
    path = local_bundle(path)
    divided = _divided(path)
    return divided[0] / "encoder" if divided else find_bundle(path)


def find_model(path: Path) -> Path:
    """The bundle at `path` or on the hub, or the one of the run there; `RequestError` where there is none."""
    path = local_bundle(path)
    return path if any((path / name).is_file() for name in LAYOUTS) else _trained(path)


def _trained(run: Path) -> Path:
    if not run.is_dir():
        raise RequestError(f"no run folder at '{run}'")
    if not (run / "encoder").is_dir():
        folds = sorted(folder.parent.name for folder in run.glob("fold-*/encoder"))
        hint = f"give one of its folds, such as {run / folds[0]}" if folds else "has its training finished?"
        raise RequestError(f"'{run}' holds no trained model: {hint}")
    return run / "encoder"


def split_bundle(path: Path, index: Index, split: "Split") -> "Bundle":
    """The bundle of a split in a run that has one for each, else the one at `path`.

    Raises `RequestError` where the run has none for this split, or where it was kept from other clips than those the
    split tests: their scores would flatter it.
    """
    from ..fusion.bundle import load_bundle  # torch comes only with the first model

    path = local_bundle(path)
    if divided := _divided(path):
        if path / split.name not in divided:
            names = ", ".join(folder.name for folder in divided)
            raise RequestError(
                f"'{path}' has encoders for the splits {names}, none for {split.name}: pretrain that one too"
            )
        path = path / split.name
    bundle = load_bundle(find_bundle(path))
    unseen = bundle.provenance.get(UNSEEN)
    if unseen is not None and unseen != tested_digest(index, split):
        raise RequestError(
            f"the encoder '{path}' was kept from other clips than those {split.name} tests: give the folds, group, "
            "label, classes and seed that it was pretrained with, or pretrain it with these"
        )
    return bundle


def tested_digest(index: Index, split: "Split") -> str:
    """What tells the test clips of a split from those of any other: an encoder's bundle says whom it has not seen."""
    keys = sorted(index.samples[number].key for number in split.test.tolist())
    return hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]


def _divided(path: Path) -> list[Path]:
    """The folders of a divided run's splits; none of any other folder."""
    if (path / "encoder").is_dir() or not (path / "config.yaml").is_file():
        return []
    return [encoder.parent for encoder in sorted(path.glob("*/encoder"))]


def run_of(path: Path) -> Path | None:
    """The run folder that `path` is, or a bundle lies in; none for an exported bundle, which is left as it is."""
    return next((folder for folder in (path, path.parent) if (folder / "config.yaml").is_file()), None)


def cache_folder(path: Path) -> Path | None:
    """RUN/features of the run a bundle lies in."""
    run = run_of(path)
    return None if run is None else run / "features"
