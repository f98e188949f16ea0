"""Symmetric 6x6 matrices, held as the 21 numbers of their upper half, row by row, at an address."""

import math

from posegrad.kernels.jit import doubles, helper, inlined

_TINY = 1.4916681462400413e-154  # the root of float64's smallest normal number
_EPS = 2.220446049250313e-16


@inlined
def diagonal(i):
    """Where the i-th diagonal entry is."""
    return (13 - i) * i // 2


@inlined
def entry(i, j):
    """Where the entry (i, j) is, i <= j."""
    return (13 - i) * i // 2 + j - i


@helper
def solve(matrix, damping, right, answer):
    """``(H + diag(damping)) answer = right`` for a positive definite matrix, by L D L^T of the matrix scaled to unit
    diagonal. Returns the determinant of that; 0, with an answer of zeros, where it is not positive definite.

    All scalars: as loops over a 6x6 array in memory it takes twice as long.
    """
    h, x, b, e = doubles(matrix), doubles(answer), doubles(right), doubles(damping)
    a00, a11, a22 = h[0] + e[0], h[6] + e[1], h[11] + e[2]
    a33, a44, a55 = h[15] + e[3], h[18] + e[4], h[20] + e[5]
    usable = (a00 > _TINY) and (a11 > _TINY) and (a22 > _TINY)
    usable = usable and (a33 > _TINY) and (a44 > _TINY) and (a55 > _TINY)
    determinant = 0.0
    if usable:
        s0, s1, s2 = 1.0 / math.sqrt(a00), 1.0 / math.sqrt(a11), 1.0 / math.sqrt(a22)
        s3, s4, s5 = 1.0 / math.sqrt(a33), 1.0 / math.sqrt(a44), 1.0 / math.sqrt(a55)
        a01, a02, a03 = h[1] * (s0 * s1), h[2] * (s0 * s2), h[3] * (s0 * s3)
        a04, a05 = h[4] * (s0 * s4), h[5] * (s0 * s5)
        a12, a13, a14, a15 = h[7] * (s1 * s2), h[8] * (s1 * s3), h[9] * (s1 * s4), h[10] * (s1 * s5)
        a23, a24, a25 = h[12] * (s2 * s3), h[13] * (s2 * s4), h[14] * (s2 * s5)
        a34, a35, a45 = h[16] * (s3 * s4), h[17] * (s3 * s5), h[19] * (s4 * s5)
        # column by column; the scaled diagonal is 1
        l1, l2, l3, l4, l5 = a01, a02, a03, a04, a05
        d1 = 1.0 - l1 * a01
        a12, a13, a14, a15 = a12 - l1 * a02, a13 - l1 * a03, a14 - l1 * a04, a15 - l1 * a05
        d2, a23, a24, a25 = 1.0 - l2 * a02, a23 - l2 * a03, a24 - l2 * a04, a25 - l2 * a05
        d3, a34, a35 = 1.0 - l3 * a03, a34 - l3 * a04, a35 - l3 * a05
        d4, a45, d5 = 1.0 - l4 * a04, a45 - l4 * a05, 1.0 - l5 * a05
        i1 = 1.0 / d1
        m2, m3, m4, m5 = a12 * i1, a13 * i1, a14 * i1, a15 * i1
        d2, a23, a24, a25 = d2 - m2 * a12, a23 - m2 * a13, a24 - m2 * a14, a25 - m2 * a15
        d3, a34, a35 = d3 - m3 * a13, a34 - m3 * a14, a35 - m3 * a15
        d4, a45, d5 = d4 - m4 * a14, a45 - m4 * a15, d5 - m5 * a15
        i2 = 1.0 / d2
        n3, n4, n5 = a23 * i2, a24 * i2, a25 * i2
        d3, a34, a35 = d3 - n3 * a23, a34 - n3 * a24, a35 - n3 * a25
        d4, a45, d5 = d4 - n4 * a24, a45 - n4 * a25, d5 - n5 * a25
        i3 = 1.0 / d3
        o4, o5 = a34 * i3, a35 * i3
        d4, a45, d5 = d4 - o4 * a34, a45 - o4 * a35, d5 - o5 * a35
        i4 = 1.0 / d4
        p5 = a45 * i4
        d5 = d5 - p5 * a45
        if (d1 > 0.0) and (d2 > 0.0) and (d3 > 0.0) and (d4 > 0.0) and (d5 > 0.0):
            determinant = d1 * d2 * d3 * d4 * d5
            y0 = b[0] * s0
            y1 = b[1] * s1 - l1 * y0
            y2 = b[2] * s2 - l2 * y0 - m2 * y1
            y3 = b[3] * s3 - l3 * y0 - m3 * y1 - n3 * y2
            y4 = b[4] * s4 - l4 * y0 - m4 * y1 - n4 * y2 - o4 * y3
            y5 = (b[5] * s5 - l5 * y0 - m5 * y1 - n5 * y2 - o5 * y3 - p5 * y4) / d5
            y4 = y4 * i4 - p5 * y5
            y3 = y3 * i3 - o4 * y4 - o5 * y5
            y2 = y2 * i2 - n3 * y3 - n4 * y4 - n5 * y5
            y1 = y1 * i1 - m2 * y2 - m3 * y3 - m4 * y4 - m5 * y5
            y0 = y0 - l1 * y1 - l2 * y2 - l3 * y3 - l4 * y4 - l5 * y5
            x[0], x[1], x[2], x[3], x[4], x[5] = y0 * s0, y1 * s1, y2 * s2, y3 * s3, y4 * s4, y5 * s5
    if not determinant > 0.0:
        determinant = 0.0
        x[0], x[1], x[2], x[3], x[4], x[5] = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    return determinant


@helper
def scaled_eigenvalues(matrix, right, work):
    """Of a matrix scaled to unit diagonal, where that is positive: smallest eigenvalue, smallest magnitude, and
    ``right^T |H|^-1 right`` with magnitudes clamped to machine epsilon. By Jacobi's method, in 84 numbers at ``work``.
    """
    h, b, A, V = doubles(matrix), doubles(right), doubles(work), doubles(work + 8 * 36)
    scale = doubles(work + 8 * 72)
    for i in range(6):
        pivot = h[diagonal(i)]
        scale[i] = 1.0 / math.sqrt(pivot) if pivot > 0.0 else 1.0
    for i in range(6):
        for j in range(i, 6):
            A[6 * i + j] = A[6 * j + i] = h[entry(i, j)] * scale[i] * scale[j]
            V[6 * i + j] = V[6 * j + i] = 1.0 if i == j else 0.0
    for _ in range(30):
        off = 0.0
        for i in range(6):
            for j in range(i + 1, 6):
                off += A[6 * i + j] * A[6 * i + j]
        if not off > 1e-40:
            break
        for i in range(6):
            for j in range(i + 1, 6):
                rotate(A, V, i, j)
    lowest, nearest, square = A[0], abs(A[0]), 0.0
    for k in range(6):
        value = A[7 * k]
        lowest, nearest = min(lowest, value), min(nearest, abs(value))
        along = 0.0
        for i in range(6):
            along += V[6 * i + k] * scale[i] * b[i]
        square += along * along / max(abs(value), _EPS)
    return lowest, nearest, square


@helper
def rotate(A, V, i, j):
    """One rotation of Jacobi's method (Golub & Van Loan, section 8.5.2)."""
    if A[6 * i + j] == 0.0:
        return
    tau = (A[7 * j] - A[7 * i]) / (2.0 * A[6 * i + j])
    t = 1.0 / (tau + math.sqrt(1.0 + tau * tau)) if tau >= 0.0 else 1.0 / (tau - math.sqrt(1.0 + tau * tau))
    c = 1.0 / math.sqrt(1.0 + t * t)
    s = t * c
    for k in range(6):
        x, y = A[6 * k + i], A[6 * k + j]
        A[6 * k + i], A[6 * k + j] = c * x - s * y, s * x + c * y
        x, y = V[6 * k + i], V[6 * k + j]
        V[6 * k + i], V[6 * k + j] = c * x - s * y, s * x + c * y
    for k in range(6):
        x, y = A[6 * i + k], A[6 * j + k]
        A[6 * i + k], A[6 * j + k] = c * x - s * y, s * x + c * y
