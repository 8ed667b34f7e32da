"""Arrays on disk."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy


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
