"""Features of many recordings in one file, Parquet or NPZ. The same rows always give the same bytes."""

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...fusion.bundle.embedder import Embedding
from ...shards.errors import RequestError
from ...shards.index.whole_file import remove_partial, whole_file

ABOUT = "modalgate"
ROW_GROUP = 4096


@dataclass(frozen=True)
class FeatureRows:
    """Recordings and their features, loaded one at a time."""

    keys: list[str]
    """Keys of the recordings."""
    windows: list[int]
    """Number of windows of each recording."""
    read: Callable[[int], Embedding]
    """Loads the features of the recording with this number. Called several times."""
    modalities: tuple[str, ...]
    width: int
    """Length of a feature vector."""
    by_modality: bool
    """Write the features of each modality too."""
    about: Mapping[str, Any]
    """Settings that produced the features, as plain values."""

    def embeddings(self) -> Iterable[tuple[str, Embedding]]:
        """Yields (key, features) in order."""
        return ((key, self.read(number)) for number, key in enumerate(self.keys))


def write_features(rows: FeatureRows, path: Path) -> None:
    """Writes `path` atomically, in the format of its suffix."""
    remove_partial(path)
    with whole_file(path) as partial:
        FORMS[path.suffix][0](rows, partial)


def read_about(path: Path) -> dict[str, Any] | None:
    """Returns the settings that produced the features at `path`, or None if it is not a feature file."""
    try:
        return FORMS[path.suffix][1](path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def check_form(path: Path) -> None:
    """Raises `RequestError` if the suffix is not a known format, or if the format's package is not installed."""
    if path.suffix not in FORMS:
        raise RequestError(f"'{path}' has no suffix of a feature file: use a name that ends in {' or '.join(FORMS)}")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise RequestError(
                f"'{path}' needs pyarrow: pip install 'modalgate[embed]', or use a name that ends in .npz"
            ) from error


def _write_parquet(rows: FeatureRows, path: Path) -> None:
    """Writes row groups of at least `ROW_GROUP` rows.

    Features are lists of fixed length, null if a modality is absent.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    vector = pa.list_(pa.float32(), rows.width)
    fields = [
        pa.field("key", pa.string()),
        pa.field("start", pa.float64()),
        pa.field("end", pa.float64()),
        pa.field("features", vector),
        *(pa.field(f"weight.{name}", pa.float32()) for name in rows.modalities),
        *(pa.field(f"present.{name}", pa.bool_()) for name in rows.modalities),
        *(pa.field(f"features.{name}", vector) for name in rows.modalities if rows.by_modality),
    ]
    schema = pa.schema(fields, metadata={ABOUT: json.dumps(dict(rows.about))})

    def table(key: str, found: Embedding) -> Any:
        columns = [
            pa.array([key] * len(found), pa.string()),
            pa.array(found.start),
            pa.array(found.end),
            _vectors(found.features, None),
            *(pa.array(column) for column in found.weights.T),
            *(pa.array(column) for column in found.present.T),
        ]
        for column, name in enumerate(rows.modalities):
            if rows.by_modality:
                columns.append(_vectors(found.by_modality[name], ~found.present[:, column]))
        return pa.Table.from_arrays(columns, schema=schema)

    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        held, count = [], 0
        for key, found in rows.embeddings():
            held.append(table(key, found))
            count += len(found)
            if count >= ROW_GROUP:
                writer.write_table(pa.concat_tables(held), row_group_size=count)
                held, count = [], 0
        if held:
            writer.write_table(pa.concat_tables(held), row_group_size=count)


def _vectors(values: NDArray[np.float32], absent: NDArray[np.bool_] | None) -> Any:
    import pyarrow as pa

    mask = None if absent is None else pa.array(absent)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1], mask=mask)


def _write_npz(rows: FeatureRows, path: Path) -> None:
    """Writes arrays with one row per window. Arrays are streamed, so none is held in memory whole."""
    count, modalities = sum(rows.windows), len(rows.modalities)
    longest = max((len(key) for key in rows.keys), default=1)
    arrays: dict[str, tuple[Any, tuple[int, ...], Callable[[str, Embedding], NDArray[Any]]]] = {
        "key": (f"<U{longest}", (), lambda key, found: np.full(len(found), key)),
        "start": ("<f8", (), lambda key, found: found.start),
        "end": ("<f8", (), lambda key, found: found.end),
        "features": ("<f4", (rows.width,), lambda key, found: found.features),
        "weights": ("<f4", (modalities,), lambda key, found: found.weights),
        "present": ("|b1", (modalities,), lambda key, found: found.present),
    }
    for name in rows.modalities if rows.by_modality else ():
        arrays[f"features.{name}"] = ("<f4", (rows.width,), lambda key, found, name=name: found.by_modality[name])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (("modalities", list(rows.modalities)), (ABOUT, json.dumps(dict(rows.about)))):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(content), allow_pickle=False)
        for name, (kind, shape, values) in arrays.items():
            # ZipInfo has a fixed time. NumPy's own writer would store the current time.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                header = {"descr": kind, "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
                for key, found in rows.embeddings():
                    file.write(np.ascontiguousarray(values(key, found), np.dtype(kind)).tobytes())


def _about_parquet(path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return json.loads(pq.read_schema(path).metadata[ABOUT.encode()])


def _about_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return json.loads(str(arrays[ABOUT]))


FORMS: dict[str, tuple[Callable[[FeatureRows, Path], None], Callable[[Path], dict[str, Any]]]] = {
    ".parquet": (_write_parquet, _about_parquet),
    ".npz": (_write_npz, _about_npz),
}
