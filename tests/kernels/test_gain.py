"""The compiled bound on the gain, of matrices that no pose problem has readily."""

import numba
import numpy as np
import pytest

from posegrad.kernels import backward
from posegrad.kernels.linear import entry


@pytest.fixture(scope="module")
def bound():
    return numba.njit(lambda work, gain: backward.bound(work, gain))


@pytest.mark.parametrize(
    ("diagonal", "expected"),
    [([4.0] * 6, 0.125), ([4.0] * 5 + [0.0], 1.0), ([4.0] * 5 + [-1e-16], 1.0)],
    ids=["regular", "singular", "below zero from rounding"],
)
def test_nothing_is_bounded_beside_a_singular_matrix(bound, diagonal: list[float], expected: float) -> None:
    work = np.zeros(backward.NUM_WORK)
    for i, value in enumerate(diagonal):
        work[backward.SUMS + entry(i, i)] = value
    response, gradient = (work[at : at + 6] for at in (backward.DELTA, backward.DAMPED))
    response[:] = gradient[:] = 1.0  # a gain of 4, were the matrix regular
    bound(work.ctypes.data, 0.5)
    assert response.tolist() == [expected] * 6
