"""Arrow matrices, see :mod:`posegrad.optim.arrow`: blocks of six unknowns, which meet in a few shared ones."""

import math
from typing import Any

from numba import types

from posegrad.kernels import jit
from posegrad.kernels.jit import doubles, helper


@helper
def factor(matrix_at, size):
    """Cholesky's factor in place of the lower half; whether there is one."""
    a = doubles(matrix_at)
    for j in range(size):
        pivot = a[j * size + j]
        for m in range(j):
            pivot -= a[j * size + m] * a[j * size + m]
        if not (pivot > 0.0 and pivot < math.inf):
            return False
        pivot = math.sqrt(pivot)
        a[j * size + j] = pivot
        for i in range(j + 1, size):
            value = a[i * size + j]
            for m in range(j):
                value -= a[i * size + m] * a[j * size + m]
            a[i * size + j] = value / pivot
    return True


@helper
def inverse_diagonal(factor_at, size, scale, answer):
    """The inverse's diagonal of a factored matrix, in the first half of ``answer``; and its sum times ``scale``."""
    L, total = doubles(factor_at), 0.0
    for j in range(size):
        square = 0.0
        for i in range(j, size):
            value = 1.0 if i == j else 0.0
            for m in range(j, i):
                value -= L[i * size + m] * answer[size + m]
            answer[size + i] = value / L[i * size + i]
            square += answer[size + i] * answer[size + i]
        answer[j] = square
        total += square * scale[j]
    return total


SIGNATURE = types.int64(*[types.int64] * 9)
call_solve = jit.calling(SIGNATURE)


@helper
def solve(corner_at, cross_at, blocks_at, right_at, num_free, num_blocks, damping_at, answer_at, work_at):
    """``(H + diag(damping)) answer = right``, shared unknowns first; False where H is not positive definite.

    ``work`` has room for ``F^2 + V (36 + 6 (F + 1))`` numbers.
    """
    F, V, wide = num_free, num_blocks, num_free + 1
    corner, cross, blocks = doubles(corner_at), doubles(cross_at), doubles(blocks_at)
    right, damping, answer = doubles(right_at), doubles(damping_at), doubles(answer_at)
    schur, factors_at = doubles(work_at), work_at + 8 * F * F
    factors, columns = doubles(factors_at), doubles(factors_at + 8 * 36 * V)
    for j in range(F):
        answer[j] = right[j]
        for l in range(F):
            schur[j * F + l] = corner[j * F + l]
        schur[j * F + j] += damping[j]
    for v in range(V):
        L, C = 36 * v, 6 * wide * v
        for j in range(36):
            factors[L + j] = blocks[L + j]
        for j in range(6):
            factors[L + 7 * j] += damping[F + 6 * v + j]
        if not factor(factors_at + 8 * L, 6):
            return False
        for i in range(6):
            inverse = 1.0 / factors[L + 7 * i]
            for l in range(wide):
                value = cross[6 * F * v + 6 * l + i] if l < F else right[F + 6 * v + i]
                for m in range(i):
                    value -= factors[L + 6 * i + m] * columns[C + m * wide + l]
                columns[C + i * wide + l] = value * inverse
        for m in range(6):
            at = C + m * wide
            for j in range(F):
                c = columns[at + j]
                for l in range(F):
                    schur[j * F + l] -= c * columns[at + l]
                answer[j] -= c * columns[at + F]
    if not factor(work_at, F):
        return False
    for j in range(F):
        for m in range(j):
            answer[j] -= schur[j * F + m] * answer[m]
        answer[j] /= schur[j * F + j]
    for j in range(F - 1, -1, -1):
        for m in range(j + 1, F):
            answer[j] -= schur[m * F + j] * answer[m]
        answer[j] /= schur[j * F + j]
    for v in range(V):
        L, C, at = 36 * v, 6 * wide * v, F + 6 * v
        for i in range(5, -1, -1):
            value = columns[C + i * wide + F]
            for l in range(F):
                value -= columns[C + i * wide + l] * answer[l]
            for m in range(i + 1, 6):
                value -= factors[L + 6 * m + i] * answer[at + m]
            answer[at + i] = value / factors[L + 7 * i]
    return True


def compile_solve() -> Any:
    """Compile :func:`solve`, or load it from the disk."""
    source = jit.stamp()

    @jit.by_address(SIGNATURE)
    def solved(
        corner_at, cross_at, blocks_at, right_at, num_free, num_blocks, damping_at, answer_at, work_at
    ):
        _ = source
        fine = solve(
            corner_at, cross_at, blocks_at, right_at, num_free, num_blocks, damping_at, answer_at, work_at
        )
        return 1 if fine else 0

    return solved
