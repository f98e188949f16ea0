"""Where two conics meet, for ``p3p``; 3-vectors, and 3x3 matrices as nine numbers in memory, row by row."""

import math

from posegrad.kernels.jit import helper, inlined

_CUBIC_STEPS, _TINY, SMALL = 2, 2.2250738585072014e-308, 1e-30
#: places among the numbers: two conics, a member of their pencil, an adjugate; lines, axes across; common points
E1, E2, MEMBER, ADJUGATE, LINES, AXES, POINTS, NUM_CONICS = 0, 9, 18, 27, 36, 42, 48, 60


@inlined
def cross(a, b):
    """Cross product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inlined
def dot(a, b):
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inlined
def unit(a, least):
    """A vector over its length, or over ``least``."""
    f = 1.0 / max(math.sqrt(dot(a, a)), least)
    return f * a[0], f * a[1], f * a[2]


@inlined
def row(M, at):
    """Three numbers of memory."""
    return M[at], M[at + 1], M[at + 2]


@inlined
def put(M, at, a):
    """Three numbers to memory."""
    M[at], M[at + 1], M[at + 2] = a


@helper
def adjugate(n, at, target):
    """Of a symmetric matrix the adjugate, of any other its transpose; returns the determinant."""
    a, b, c = row(n, at), row(n, at + 3), row(n, at + 6)
    first = cross(b, c)
    put(n, target, first)
    put(n, target + 3, cross(c, a))
    put(n, target + 6, cross(a, b))
    return dot(a, first)


@helper
def across(n, at, target):
    """Two unit vectors perpendicular to the one at ``at``, and to each other."""
    a = unit(row(n, at), SMALL)
    x, y, z = abs(a[0]), abs(a[1]), abs(a[2])
    if x <= y and x <= z:
        u = 0.0, a[2], -a[1]
    elif y <= z:
        u = -a[2], 0.0, a[0]
    else:
        u = a[1], -a[0], 0.0
    u = unit(u, SMALL)
    put(n, target, u)
    put(n, target + 3, cross(a, u))


@helper
def combine(n, target, f, first, g, second):
    """``f A + g B``."""
    for k in range(9):
        n[target + k] = f * n[first + k] + g * n[second + k]


@helper
def normalise(n, at):
    """A matrix over its norm."""
    square = 0.0
    for k in range(9):
        square += n[at + k] * n[at + k]
    f = 1.0 / max(math.sqrt(square), SMALL)
    for k in range(9):
        n[at + k] *= f


@helper
def cubic_roots(c3, c2, c1, c0):
    """The three real roots of a cubic, or the one three times."""
    c3 = 1.0 if c3 == 0.0 else c3
    a, b, c = c2 / c3, c1 / c3, c0 / c3
    third = a / 3.0
    p, q = b / 3.0 - third * third, 0.5 * (third * (2.0 * third * third - b) + c)  # x^3 + 3 p x + 2 q = 0
    discriminant = q * q + p * p * p
    if discriminant > 0.0:
        x = -math.copysign((abs(q) + math.sqrt(discriminant)) ** (1.0 / 3.0), q)
        x -= p / (1.0 if x == 0.0 else x)
        x = polish_root(x - third, a, b, c)
        return x, x, x
    radius = math.sqrt(max(-p, 0.0))
    cosine = -q / max(radius * radius * radius, _TINY)
    angle = math.acos(min(max(cosine, -1.0), 1.0))
    turn = 2.0 * math.pi
    x = 2.0 * radius * math.cos(angle / 3.0) - third
    y = 2.0 * radius * math.cos((angle + turn) / 3.0) - third
    z = 2.0 * radius * math.cos((angle + 2.0 * turn) / 3.0) - third
    return polish_root(x, a, b, c), polish_root(y, a, b, c), polish_root(z, a, b, c)


@helper
def polish_root(x, a, b, c):
    """Newton steps, as long as they help."""
    for _ in range(_CUBIC_STEPS):
        value, slope = ((x + a) * x + b) * x + c, (3.0 * x + 2.0 * a) * x + b
        trial = x - value / (1.0 if slope == 0.0 else slope)
        x = trial if abs(((trial + a) * trial + b) * trial + c) < abs(value) else x
    return x


@helper
def common_points(n):
    """Where E1 and E2 meet: four points, of complex ones the real part."""
    c0 = adjugate(n, E1, MEMBER)
    c3 = adjugate(n, E2, ADJUGATE)
    c1 = c2 = 0.0
    for k in range(9):
        c2 += n[E1 + k] * n[ADJUGATE + k]
        c1 += n[E2 + k] * n[MEMBER + k]
    roots = cubic_roots(c3, c2, c1, c0)
    # the product of the two eigenvalues that are not zero: negative for real lines, the more so the less alike
    root, least = roots[0], math.inf
    for k in range(3):
        x = roots[0] if k == 0 else roots[1] if k == 1 else roots[2]
        combine(n, MEMBER, 1.0, E1, x, E2)
        normalise(n, MEMBER)
        adjugate(n, MEMBER, ADJUGATE)
        product = n[ADJUGATE] + n[ADJUGATE + 4] + n[ADJUGATE + 8]
        if product < least:
            least, root = product, x
    combine(n, MEMBER, 1.0, E1, root, E2)
    normalise(n, MEMBER)
    lines(n)
    # on the lines E1 = -root E2: here the two add up
    f = 1.0 / (1.0 + root * root)
    combine(n, MEMBER, -f * root, E1, f, E2)
    for i in range(2):
        across(n, LINES + 3 * i, AXES)
        u, v = row(n, AXES), row(n, AXES + 3)
        A, B, C = row(n, MEMBER), row(n, MEMBER + 3), row(n, MEMBER + 6)
        Mu, Mv = (dot(A, u), dot(B, u), dot(C, u)), (dot(A, v), dot(B, v), dot(C, v))
        a, b, c = dot(u, Mu), dot(u, Mv), dot(v, Mv)
        far = -(b + math.copysign(math.sqrt(max(b * b - a * c, 0.0)), b))
        for j in range(2):
            f, g = (far, a) if j == 0 else (c, far)
            point = f * u[0] + g * v[0], f * u[1] + g * v[1], f * u[2] + g * v[2]
            put(n, POINTS + 6 * i + 3 * j, unit(point, SMALL))


@helper
def lines(n):
    """The two lines of the singular conic ``l m^T + m l^T`` at MEMBER; its adjugate is ``-p p^T``, p = l x m."""
    adjugate(n, MEMBER, ADJUGATE)
    square, index = -n[ADJUGATE], 0
    for k in range(1, 3):
        if -n[ADJUGATE + 4 * k] > square:
            square, index = -n[ADJUGATE + 4 * k], k
    f = -1.0 / math.sqrt(square) if square > _TINY else 0.0
    p0, p1, p2 = row(n, ADJUGATE + 3 * index)
    p0, p1, p2 = f * p0, f * p1, f * p2
    # plus [p]x: 2 l m^T, or its transpose
    n[MEMBER + 1] -= p2
    n[MEMBER + 2] += p1
    n[MEMBER + 3] += p2
    n[MEMBER + 5] -= p0
    n[MEMBER + 6] -= p1
    n[MEMBER + 7] += p0
    largest, index = -1.0, 0
    for k in range(9):
        if abs(n[MEMBER + k]) > largest:
            largest, index = abs(n[MEMBER + k]), k
    down, along = index // 3, index % 3
    put(n, LINES, unit(row(n, MEMBER + 3 * down), SMALL))
    column = n[MEMBER + along], n[MEMBER + 3 + along], n[MEMBER + 6 + along]
    put(n, LINES + 3, unit(column, SMALL))
