"""The inner product that scores are made of: float64, in one order of additions whatever the processor."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from retrieval.index.kernels import dot


def ordered(left: np.ndarray, right: np.ndarray) -> float:
    """Eight lanes, their sum in halves, then the rest one by one."""
    lanes, whole = [0.0] * 8, len(left) - len(left) % 8
    products = [float(a) * float(b) for a, b in zip(left, right, strict=True)]
    for place in range(whole):
        lanes[place % 8] += products[place]
    fours = [lanes[j] + lanes[j + 4] for j in range(4)]
    total = (fours[0] + fours[2]) + (fours[1] + fours[3])
    for product in products[whole:]:
        total += product
    return total


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 16, 63, 64, 65, 200])
def test_every_bit_is_the_order_s(size: int, dtype: type) -> None:
    random = np.random.default_rng(size)
    for scale in (1.0, 1e30):
        left, right = random.standard_normal((2, size)) * scale
        left = left.astype(dtype)
        assert dot(left, right) == ordered(left, right)


def test_rows_of_a_matrix_that_begin_anywhere() -> None:
    rows = np.random.default_rng(1).standard_normal((5, 13)).astype(np.float32)
    right = np.arange(13.0)
    assert [dot(row, right) for row in rows] == [ordered(row, right) for row in rows]


def test_vectors_with_gaps_are_refused() -> None:
    @njit
    def column(matrix: np.ndarray) -> float:
        return dot(matrix[:, 0], matrix[0])

    with pytest.raises(TypingError, match="contiguous"):
        column(np.eye(8))
