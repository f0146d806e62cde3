"""Arrays from NumPy and MATLAB files: valid and rejected ones."""

import io
import pickle
import resource
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from modalgate.shards.media import arrays
from modalgate.shards.media.arrays import open_array
from scipy.io import savemat


def test_round_trips(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 5000, (4, 5, 6)).astype(np.uint16)
    np.save(tmp_path / "a.npy", values)
    savemat(tmp_path / "a.mat", {"d_depth": values, "note": "text", "rate": 30.0}, do_compression=True)
    np.testing.assert_array_equal(open_array(tmp_path / "a.npy", 3), values)
    np.testing.assert_array_equal(open_array(tmp_path / "a.mat", 3), values)


def test_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "flat.npy", np.zeros((4, 5)))
    with pytest.raises(ValueError, match=r"'flat\.npy' has shape \(4, 5\) of float64, needs 3 axes of numbers"):
        open_array(tmp_path / "flat.npy", 3)
    np.save(tmp_path / "object.npy", np.array([{"run": "me"}], dtype=object))
    with pytest.raises(ValueError, match=r"allow_pickle=False|object"):
        open_array(tmp_path / "object.npy", 1)
    savemat(tmp_path / "two.mat", {"a": np.zeros((2, 2, 2)), "b": np.zeros((3, 2, 2))})
    with pytest.raises(ValueError, match=r"'two\.mat' needs one array of 3 axes, it has a \(2, 2, 2\), b"):
        open_array(tmp_path / "two.mat", 3)
    (tmp_path / "text.mat").write_text("no matrix")
    with pytest.raises(ValueError, match=r"'text\.mat' cannot be read as a MATLAB file"):
        open_array(tmp_path / "text.mat", 3)


def test_a_damaged_matlab_file_gives_an_array_or_an_expected_error(tmp_path: Path) -> None:
    """Bytes flipped or cut anywhere give an array, `ValueError` or `OSError`, and no other error."""
    savemat(tmp_path / "a.mat", {"d_depth": np.arange(600.0).reshape(5, 6, 20)}, do_compression=True)
    whole, generator = (tmp_path / "a.mat").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        data[generator.integers(len(data))] ^= 1 << int(generator.integers(8))
        (tmp_path / "b.mat").write_bytes(data[: generator.integers(len(data) // 2, 2 * len(data))])
        try:
            open_array(tmp_path / "b.mat", 3)
        except (ValueError, OSError):
            refused += 1
    assert refused > 100


class Harm:
    """Its pickle runs code when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle was run')",)


def zipped(**arrays: object) -> bytes:
    target = io.BytesIO()
    np.savez_compressed(target, allow_pickle=True, **{key: np.array(value) for key, value in arrays.items()})
    return target.getvalue()


def npy_header(text: str, version: int = 1) -> bytes:
    content = text.encode()
    length = len(content).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + content


HOSTILE_ARRAYS = {
    "a pickle": pickle.dumps(Harm()),
    "a pickled object": npy_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1), }")
    + pickle.dumps(Harm()),
    "an archive": zipped(a=np.zeros((4, 6))),
    "an archive of pickles": zipped(a=[[Harm()]]),
    "an archive that is a bomb": zipped(a=np.zeros((1000, 6000))),
    "a shape beyond the file": npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (10**12, 6), }"),
    "a huge shape": npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30}, 6), }}"),
    "a negative shape": npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 6), }") + bytes(96),
    "a deep header": npy_header("(" * 9000),
    "deep brackets": npy_header("{'descr': " + "[" * 3000 + "]" * 3000 + "}"),
    "a long header": npy_header("{'descr': '<f8'," + " " * 10**6 + "}", version=2),
    "code in the header": npy_header("__import__('os').system('false')"),
    "a strange type": npy_header("{'descr': 'm8[99999999999s]', 'fortran_order': False, 'shape': (1, 1), }"),
    "an empty file": b"",
    "a head alone": b"\x93NUMPY",
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
@pytest.mark.parametrize("suffix", [".npy", ".mat"])
def test_hostile_arrays_are_value_errors(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(HOSTILE_ARRAYS[name])
    tracemalloc.start()
    with pytest.raises((ValueError, OSError)):
        open_array(path, 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 2**20


def test_a_small_matlab_file_takes_no_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 2**27
    monkeypatch.setattr(arrays, "MOST_BYTES", most)
    path = tmp_path / "bomb.mat"
    unpacked = zlib.compressobj(9)
    step = bytes(2**24)
    packed = b"".join(unpacked.compress(step) for _ in range(most // len(step) + 1)) + unpacked.flush()
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"
    path.write_bytes(head + (15).to_bytes(4, "little") + len(packed).to_bytes(4, "little") + packed)
    assert path.stat().st_size < 2 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"'bomb\.mat' holds more than 134217728 bytes"):
        open_array(path, 2)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024


def test_an_empty_and_a_compressed_array_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "none.npy", np.zeros((0, 6)))
    with pytest.raises(ValueError):
        open_array(tmp_path / "none.npy", 3)
    values = np.random.default_rng(0).normal(size=(500, 6))
    savemat(tmp_path / "two.mat", {"a": values, "long_name": "x" * 10**5}, do_compression=True)
    np.testing.assert_array_equal(open_array(tmp_path / "two.mat", 2), values)
