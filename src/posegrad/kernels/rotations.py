"""Damped Newton steps of a quadratic form of the nine entries of a rotation, from the 24 rotations of the cube.

Or of its quotient by the square of a linear form.

All at once, a lane each: the loop over them is the inner one, of straight code.
"""

import itertools
import math

import numpy as np

from posegrad.kernels.jit import doubles, inlined

NUM_STARTS, _STEPS = 24, 12
#: places among the numbers a start needs: sums (64), form, translation as a form of R, rotations, cost, damping,
#: trials, the linear form
OMEGA, SHIFT, ROTATIONS, COSTS, DAMPINGS, TRIALS, UNDER, NUM_NUMBERS = 64, 145, 172, 388, 412, 436, 652, 661


def _cube() -> tuple[tuple[float, ...], ...]:
    """The 24 rotations of the cube, entry by entry."""
    rotations = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            R = np.zeros((3, 3))
            R[range(3), order] = signs
            if np.linalg.det(R) > 0:
                rotations.append(R.ravel())
    return tuple(tuple(float(x) for x in column) for column in np.array(rotations).T)


_CUBE = np.array(_cube())


@inlined
def times(o, at, x, y, z):
    """A 3x3 block of the form, times a vector."""
    return (
        o[at] * x + o[at + 1] * y + o[at + 2] * z,
        o[at + 9] * x + o[at + 10] * y + o[at + 11] * z,
        o[at + 18] * x + o[at + 19] * y + o[at + 20] * z,
    )


@inlined
def dot(a, b):
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def plus(a, b, c):
    """Sum of three vectors."""
    return a[0] + b[0] + c[0], a[1] + b[1] + c[1], a[2] + b[2] + c[2]


@inlined
def less(a, b):
    """Difference of two vectors."""
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@inlined
def newton_step(o, u, quotient, A, B, C, damping):
    """Cost at the rotation with rows A, B, C, and the damped step: Newton's where its matrix is positive definite, else
    Gauss-Newton's; at most a radian. Of the form o or, if ``quotient``, of that over the square of the linear one u.
    """
    # omega r, row by row, and D[k][l] = row k of R . row l of omega r
    rA = plus(times(o, 0, A[0], A[1], A[2]), times(o, 3, B[0], B[1], B[2]), times(o, 6, C[0], C[1], C[2]))
    rB = plus(times(o, 27, A[0], A[1], A[2]), times(o, 30, B[0], B[1], B[2]), times(o, 33, C[0], C[1], C[2]))
    rC = plus(times(o, 54, A[0], A[1], A[2]), times(o, 57, B[0], B[1], B[2]), times(o, 60, C[0], C[1], C[2]))
    d00, d01, d02 = dot(A, rA), dot(A, rB), dot(A, rC)
    d10, d11, d12 = dot(B, rA), dot(B, rB), dot(B, rC)
    d20, d21, d22 = dot(C, rA), dot(C, rB), dot(C, rC)
    cost = d00 + d11 + d22
    g0, g1, g2 = d12 - d21, d20 - d02, d01 - d10
    # omega K_l r for the turns K_0 R = (0, -C, B), K_1 R = (C, 0, -A), K_2 R = (-B, A, 0)
    y0 = less(times(o, 33, B[0], B[1], B[2]), times(o, 30, C[0], C[1], C[2]))
    z0 = less(times(o, 60, B[0], B[1], B[2]), times(o, 57, C[0], C[1], C[2]))
    x1 = less(times(o, 0, C[0], C[1], C[2]), times(o, 6, A[0], A[1], A[2]))
    y1 = less(times(o, 27, C[0], C[1], C[2]), times(o, 33, A[0], A[1], A[2]))
    z1 = less(times(o, 54, C[0], C[1], C[2]), times(o, 60, A[0], A[1], A[2]))
    x2 = less(times(o, 3, A[0], A[1], A[2]), times(o, 0, B[0], B[1], B[2]))
    y2 = less(times(o, 30, A[0], A[1], A[2]), times(o, 27, B[0], B[1], B[2]))
    z2 = less(times(o, 57, A[0], A[1], A[2]), times(o, 54, B[0], B[1], B[2]))
    p00, p01, p02 = dot(B, z0) - dot(C, y0), dot(B, z1) - dot(C, y1), dot(B, z2) - dot(C, y2)
    p11, p12 = dot(C, x1) - dot(A, z1), dot(C, x2) - dot(A, z2)
    p22 = dot(A, y2) - dot(B, x2)
    h00, h11, h22 = p00 + d00 - cost, p11 + d11 - cost, p22 + d22 - cost
    h01, h02, h12 = p01 + 0.5 * (d01 + d10), p02 + 0.5 * (d02 + d20), p12 + 0.5 * (d12 + d21)
    if quotient:
        # likewise of u: s the value, n half the gradient of s^2 over it; and of gradient and Hessian half
        U, V, W = (u[0], u[1], u[2]), (u[3], u[4], u[5]), (u[6], u[7], u[8])
        e00, e01, e02 = dot(A, U), dot(A, V), dot(A, W)
        e10, e11, e12 = dot(B, U), dot(B, V), dot(B, W)
        e20, e21, e22 = dot(C, U), dot(C, V), dot(C, W)
        s = e00 + e11 + e22
        m0, m1, m2 = e12 - e21, e20 - e02, e01 - e10
        f = 1.0 / max(s * s, 1e-300)
        cost *= f
        k = f * cost
        n0, n1, n2 = f * s * m0, f * s * m1, f * s * m2
        g0, g1, g2 = f * g0 - cost * n0, f * g1 - cost * n1, f * g2 - cost * n2
        h00 = f * h00 - k * (m0 * m0 + s * (e00 - s)) - 4.0 * g0 * n0
        h11 = f * h11 - k * (m1 * m1 + s * (e11 - s)) - 4.0 * g1 * n1
        h22 = f * h22 - k * (m2 * m2 + s * (e22 - s)) - 4.0 * g2 * n2
        h01 = f * h01 - k * (m0 * m1 + 0.5 * s * (e01 + e10)) - 2.0 * (g0 * n1 + g1 * n0)
        h02 = f * h02 - k * (m0 * m2 + 0.5 * s * (e02 + e20)) - 2.0 * (g0 * n2 + g2 * n0)
        h12 = f * h12 - k * (m1 * m2 + 0.5 * s * (e12 + e21)) - 2.0 * (g1 * n2 + g2 * n1)
        p00, p01, p02, p11, p12, p22 = f * p00, f * p01, f * p02, f * p11, f * p12, f * p22
    h00, h11, h22 = h00 + damping, h11 + damping, h22 + damping
    minor = h00 * h11 - h01 * h01
    c00, c01, c02 = h11 * h22 - h12 * h12, h02 * h12 - h01 * h22, h01 * h12 - h02 * h11
    determinant = h00 * c00 + h01 * c01 + h02 * c02
    newton = h00 > 0.0 and minor > 0.0 and determinant > 0.0
    h00, h11, h22 = (
        h00 if newton else p00 + damping,
        h11 if newton else p11 + damping,
        h22 if newton else p22 + damping,
    )
    h01, h02, h12 = h01 if newton else p01, h02 if newton else p02, h12 if newton else p12
    c00, c01, c02 = h11 * h22 - h12 * h12, h02 * h12 - h01 * h22, h01 * h12 - h02 * h11
    c11, c12, c22 = h00 * h22 - h02 * h02, h01 * h02 - h00 * h12, h00 * h11 - h01 * h01
    f = -1.0 / max(h00 * c00 + h01 * c01 + h02 * c02, 1e-300)
    s0, s1, s2 = (
        f * (c00 * g0 + c01 * g1 + c02 * g2),
        f * (c01 * g0 + c11 * g1 + c12 * g2),
        f * (c02 * g0 + c12 * g1 + c22 * g2),
    )
    length = math.sqrt(s0 * s0 + s1 * s1 + s2 * s2)
    f = 1.0 / max(length, 1.0)
    return cost, f * s0, f * s1, f * s2


@inlined
def take_steps(numbers_at, quotient):
    """Newton steps of all starts; a step that does not lower the cost is taken back, and the next one damped more."""
    o, R, T = (
        doubles(numbers_at + 8 * OMEGA),
        doubles(numbers_at + 8 * ROTATIONS),
        doubles(numbers_at + 8 * TRIALS),
    )
    costs, dampings = doubles(numbers_at + 8 * COSTS), doubles(numbers_at + 8 * DAMPINGS)
    under = doubles(numbers_at + 8 * UNDER)
    trace = 0.0
    for k in range(9):
        trace += o[10 * k]
    for l in range(NUM_STARTS):
        dampings[l], costs[l] = 1e-3 * trace, math.inf  # a tenth of it for the first step
    for k in range(9):
        for l in range(NUM_STARTS):
            T[NUM_STARTS * k + l] = R[NUM_STARTS * k + l] = _CUBE[k, l]
    if quotient:
        for l in range(NUM_STARTS):
            value = 0.0
            for k in range(9):
                value += under[k] * R[NUM_STARTS * k + l]
            dampings[l] /= max(value * value, 1e-300)
    # each round: the step at every trial; where the trial is better it is where to go on from, and its step is kept
    for _ in range(_STEPS + 1):
        for l in range(NUM_STARTS):
            a0, a1, a2, a3, a4 = T[l], T[24 + l], T[48 + l], T[72 + l], T[96 + l]
            a5, a6, a7, a8 = T[120 + l], T[144 + l], T[168 + l], T[192 + l]
            cost, _, _, _ = newton_step(o, under, quotient, (a0, a1, a2), (a3, a4, a5), (a6, a7, a8), 0.0)
            better = cost <= costs[l]
            b0, b1, b2, b3, b4 = R[l], R[24 + l], R[48 + l], R[72 + l], R[96 + l]
            b5, b6, b7, b8 = R[120 + l], R[144 + l], R[168 + l], R[192 + l]
            a0, a1, a2 = a0 if better else b0, a1 if better else b1, a2 if better else b2
            a3, a4, a5 = a3 if better else b3, a4 if better else b4, a5 if better else b5
            a6, a7, a8 = a6 if better else b6, a7 if better else b7, a8 if better else b8
            R[l], R[24 + l], R[48 + l], R[72 + l], R[96 + l] = a0, a1, a2, a3, a4
            R[120 + l], R[144 + l], R[168 + l], R[192 + l] = a5, a6, a7, a8
            costs[l] = cost if better else costs[l]
            damping = dampings[l] * (0.1 if better else 8.0)
            dampings[l] = damping
            _, x, y, z = newton_step(o, under, quotient, (a0, a1, a2), (a3, a4, a5), (a6, a7, a8), damping)
            f = 1.0 / (1.0 + 0.25 * (x * x + y * y + z * z))
            xx, yy, zz, xy, xz, yz = (
                0.5 * x * x,
                0.5 * y * y,
                0.5 * z * z,
                0.5 * x * y,
                0.5 * x * z,
                0.5 * y * z,
            )
            k0, k1, k2 = -(yy + zz), xy - z, xz + y
            k3, k4, k5 = xy + z, -(xx + zz), yz - x
            k6, k7, k8 = xz - y, yz + x, -(xx + yy)
            T[l] = a0 + f * (k0 * a0 + k1 * a3 + k2 * a6)
            T[24 + l] = a1 + f * (k0 * a1 + k1 * a4 + k2 * a7)
            T[48 + l] = a2 + f * (k0 * a2 + k1 * a5 + k2 * a8)
            T[72 + l] = a3 + f * (k3 * a0 + k4 * a3 + k5 * a6)
            T[96 + l] = a4 + f * (k3 * a1 + k4 * a4 + k5 * a7)
            T[120 + l] = a5 + f * (k3 * a2 + k4 * a5 + k5 * a8)
            T[144 + l] = a6 + f * (k6 * a0 + k7 * a3 + k8 * a6)
            T[168 + l] = a7 + f * (k6 * a1 + k7 * a4 + k8 * a7)
            T[192 + l] = a8 + f * (k6 * a2 + k7 * a5 + k8 * a8)
