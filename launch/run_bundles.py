"""Where the bundles of a run lie: one, or one for each split that it was trained on."""

from pathlib import Path

from ..fusion.bundle import local_bundle


def find_bundle(path: Path) -> Path:
    """A bundle folder, the one in a run folder, or, of `hf://owner/name[@revision]`, the one in the hub's cache."""
    path = local_bundle(path)
    return path / "encoder" if (path / "encoder").is_dir() else path


def any_bundle(path: Path) -> Path:
    """`find_bundle(path)`, or the first of a run that has one for each of its splits."""
    path = local_bundle(path)
    divided = sorted(path.glob("*/encoder")) if not (path / "encoder").is_dir() else []
    return divided[0] if divided else find_bundle(path)


def split_bundle(path: Path, split: str) -> Path:
    """The bundle of a split in a run that has one for each, else `find_bundle(path)`."""
    path = local_bundle(path)
    return find_bundle(path / split if (path / split).is_dir() else path)


def run_of(path: Path) -> Path | None:
    """The run folder that `path` is, or a bundle lies in; none for an exported bundle, which is left as it is."""
    return next((folder for folder in (path, path.parent) if (folder / "config.yaml").is_file()), None)


def cache_folder(path: Path) -> Path | None:
    """RUN/features of the run a bundle lies in."""
    run = run_of(path)
    return None if run is None else run / "features"
