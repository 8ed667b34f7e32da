"""Arrays on disk."""

import math
import os
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

ScalarT = TypeVar("ScalarT", bound=np.generic)


def create_array(path: Path, shape: tuple[int, ...], dtype: type[ScalarT]) -> NDArray[ScalarT]:
    """A new array of zeros on disk, mapped to be filled in any order; the file reads as one that `save_array` wrote.

    Its room is taken now: a disk that fills up under a mapping kills the process without a word.

    Raises:
        OSError: the disk is full, or the path cannot be written.
    """
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape})
        start = stream.tell()
        os.posix_fallocate(stream.fileno(), 0, start + max(1, math.prod(shape) * np.dtype(dtype).itemsize))
        stream.truncate(start + math.prod(shape) * np.dtype(dtype).itemsize)
    # An empty array has no pages to map.
    return np.memmap(path, dtype, "r+", start, shape) if math.prod(shape) else np.zeros(shape, dtype)


def save_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    """Write what `np.save` writes, byte for byte, and fail where it cannot be written whole.

    `np.save` leaves the last bytes to a C stream whose closing nobody checks: on a disk that fills up there, it
    returns without an error and the file is short.

    Raises:
        OSError: the disk is full, or the path cannot be written. ValueError: the array holds Python objects.
    """
    if array.dtype.hasobject:
        raise ValueError(f"an array of {array.dtype} cannot be written")
    whole = np.ascontiguousarray(array).reshape(array.shape)
    with path.open("wb") as stream:
        npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(whole))
        stream.write(whole.data)
