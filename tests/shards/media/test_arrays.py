"""Arrays from NumPy and MATLAB files: valid and rejected ones."""

from pathlib import Path

import numpy as np
import pytest
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
