"""An array is on the disk whole, or there is an error."""

import io
from pathlib import Path

import numpy as np
import pytest

from retrieval.core.arrays import save_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(7, dtype=np.int64),
        np.zeros((0, 4), dtype=np.float32),
        np.array(3.5),
        np.arange(24, dtype=np.int32).reshape(4, 6)[:, ::2],
        np.array([True, False]),
    ],
)
def test_the_bytes_are_those_of_numpy(tmp_path: Path, array: np.ndarray) -> None:
    save_array(tmp_path / "a.npy", array)
    expected = io.BytesIO()
    np.save(expected, np.ascontiguousarray(array).reshape(array.shape))
    assert (tmp_path / "a.npy").read_bytes() == expected.getvalue()


def test_python_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="object"):
        save_array(tmp_path / "a.npy", np.array([{}, {}]))
    assert not (tmp_path / "a.npy").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("size", [1, 3000, 100_000])
def test_a_full_disk_is_an_error_whatever_the_size(size: int) -> None:
    with pytest.raises(OSError, match="No space left"):
        save_array(Path("/dev/full"), np.zeros(size, dtype=np.int8))
