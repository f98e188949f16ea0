"""P3P: the pose from three points, up to four answers in closed form.

1. The vertices are numbered from the longest side on. With d_i the distance of point i and ``e_ij = |v_i - v_j|^2`` of
   the rays, each side a_ij of the triangle says ``(d_i - d_j)^2 + e_ij d_i d_j = a_ij^2``. In the unknowns
   ``(d_0 - d_1, d_2 - d_1, d_1 / s)``, ``s^2 = 1 / mean(e)``, these stay well conditioned however far the points are.
2. Two combinations of the three without a constant term are conics E1, E2. In their pencil ``E1 + g E2`` the members
   with ``det = 0``, a cubic in g, are pairs of lines through the conics' common points; of the real ones the best
   conditioned pair is taken.
3. Each line meets the conics in the two roots of a quadratic. A complex pair has no answer; its real part is near.
4. Newton steps on the three equations of step 1; then the triangle is laid onto its image.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import so3
from posegrad.minimal.candidates import check_arguments, checked
from posegrad.pose import Pose

_POLISH_STEPS = 3
_SIDES = ((0, 1), (1, 2), (2, 0))
# The distances of the vertices as combinations of the unknowns, the last of which is scaled, and their differences.
_FIRST, _SECOND = [list(end) for end in zip(*_SIDES, strict=True)]
_DIFFERENCES = [[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]


def p3p(
    bearings: Float[Tensor, "B 3 3"], points3d: Float[Tensor, "B 3 3"], *, nearest: bool = False
) -> tuple[Pose, Bool[Tensor, "B 4"]]:
    """The poses that put three points on three rays: ``d_i v_i = R z_i + t`` with all ``d_i > 0``.

    The method is that of Persson & Nordberg, "Lambda Twist: An Accurate Fast Robust Perspective Three Point (P3P)
    Solver", ECCV 2018, with the pencil's member chosen as in Ding et al., "Revisiting the P3P Problem", CVPR 2023, and
    unknowns of its own. Precondition: the points are not collinear (then nothing is valid).

    Args:
        bearings: unit viewing rays (B, 3, 3), one a row; any direction, also behind 90 degrees.
        points3d: (B, 3, 3), in any unit.
        nearest: count as valid, too, the real part of a complex pair: no answer, but near to what fits best.

    Returns:
        Poses (B, 4, ...) in no particular order, and (B, 4) valid: an answer up to rounding. An answer that is double
        is listed twice. Poses that are not valid are the identity, one unit ahead.

    >>> z = torch.tensor([[[1.0, 0, 0], [0, 2, 0], [0, 0, 3]]], dtype=torch.float64)
    >>> y = z + torch.tensor([0.5, 0.3, 6.0])
    >>> pose, valid = p3p(y / y.norm(dim=-1, keepdim=True), z)
    >>> error = (pose.R - torch.eye(3)).abs().amax((-1, -2))[valid].min()
    >>> valid.sum().item(), bool(error < 1e-12)
    (2, True)
    """
    check_arguments(bearings, points3d, count=3)
    # the longest side comes first: it then gives the direction that is best determined
    longest = (points3d - points3d.roll(-1, 1)).square().sum(-1).argmax(-1, keepdim=True)
    order = (longest + torch.arange(3, device=longest.device)) % 3
    z, v = (x.gather(1, order[..., None].expand(-1, -1, 3)) for x in (points3d, bearings))
    sides = (z[:, _FIRST] - z[:, _SECOND]).square().sum(-1)
    size = sides[:, 0].clamp(min=torch.finfo(z.dtype).tiny).sqrt()
    forms, lift = _side_forms(v)
    distances, real = _distances(forms, lift, sides / size[:, None].square())
    y = distances[..., None] * size[:, None, None, None] * v[:, None]
    frame, frame_cam = _frame(z)[:, None], _frame(y)
    R = frame_cam @ frame.mT
    t = y.mean(-2) - (R @ z.mean(1)[:, None, :, None]).squeeze(-1)
    return checked(Pose(R, t), (distances > 0).all(-1) & (real | nearest) & so3.is_rotation(R))


def _side_forms(v: Float[Tensor, "B 3 3"]) -> tuple[Float[Tensor, "B 3 3 3"], Float[Tensor, "B 3 3"]]:
    """Squared sides as quadratic forms of the unknowns, one a side; distances as linear ones, one a row."""
    e = (v[:, _FIRST] - v[:, _SECOND]).square().sum(-1)
    s = e.mean(-1).clamp(min=torch.finfo(v.dtype).tiny).rsqrt()
    zero, one = torch.zeros_like(s), torch.ones_like(s)
    lift = torch.stack([one, zero, s, zero, zero, s, zero, one, s], -1).unflatten(-1, (3, 3))
    product = lift[:, _FIRST, :, None] * lift[:, _SECOND, None, :]
    difference = v.new_tensor(_DIFFERENCES)
    forms = difference[:, :, None] * difference[:, None, :] + 0.5 * e[..., None, None] * (
        product + product.mT
    )
    return forms, lift


def _distances(
    forms: Float[Tensor, "B 3 3 3"], lift: Float[Tensor, "B 3 3"], sides: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B 4 3"], Bool[Tensor, "B 4"]]:
    """The distances of the vertices, and whether they fit; the longest side is 1."""
    x = _common_points(*_pencil(forms, sides))
    x = torch.where((lift[:, None] @ x[..., None]).sum((-1, -2)).unsqueeze(-1) < 0, -x, x)
    every = (x[:, :, None] @ forms.sum(1)[:, None] @ x[..., None]).flatten(2)  # > 0: a sum of squared sides
    tiny = torch.finfo(x.dtype).tiny
    x = x * (sides.sum(-1)[:, None, None] / every.clamp(min=tiny)).sqrt()
    x, error = _polished(x, forms, sides)
    return (lift[:, None] @ x[..., None]).squeeze(-1), error < 256 * torch.finfo(x.dtype).eps


def _pencil(
    forms: Float[Tensor, "B 3 3 3"], sides: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B 3 3"]]:
    """Two conics without a constant term, E2 far from singular: the best of four members of their pencil."""
    conics = _across(sides) @ forms.flatten(2)
    conics = (conics / conics.norm(dim=-1, keepdim=True).clamp(min=1e-30)).unflatten(-1, (3, 3))
    half = math.sqrt(0.5)
    turns = forms.new_tensor([[1.0, 0.0], [half, half], [0.0, 1.0], [-half, half]])
    members = torch.einsum("ki,bimn->bkmn", turns, conics)
    best = _determinant(members).abs().argmax(-1)
    turn = turns[best]
    c, s = turn[:, :1, None], turn[:, 1:, None]
    first, second = conics.unbind(1)
    return s * first - c * second, c * first + s * second


def _common_points(E1: Float[Tensor, "B 3 3"], E2: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 4 3"]:
    """Where two conics meet: four points, of complex ones the real part."""
    roots = _cubic_roots(
        _determinant(E2),
        (E1 * _adjugate(E2)).sum((-1, -2)),
        (E2 * _adjugate(E1)).sum((-1, -2)),
        _determinant(E1),
    )
    members = E1[:, None] + roots[..., None, None] * E2[:, None]
    members = members / members.flatten(2).norm(dim=-1)[..., None, None].clamp(min=1e-30)
    # the product of the two eigenvalues that are not zero: negative for real lines, the more so the less alike
    chosen = _adjugate(members).diagonal(dim1=-2, dim2=-1).sum(-1).argmin(-1)
    at = torch.arange(len(chosen), device=chosen.device)
    lines = _lines(members[at, chosen])
    root = roots[at, chosen][:, None, None]
    # on the lines E1 = -root E2: here the two add up
    conic = ((E2 - root * E1) / (1 + root * root))[:, None]
    basis = _across(lines)
    form = basis @ conic @ basis.mT
    a, b, c = form[..., 0, 0], form[..., 0, 1], form[..., 1, 1]
    far = -(b + torch.copysign((b * b - a * c).clamp(min=0).sqrt(), b))
    weights = torch.stack([torch.stack([far, a], -1), torch.stack([c, far], -1)], -2)
    points = (weights @ basis).flatten(1, 2)
    return points / points.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def _lines(pair: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 2 3"]:
    """The two lines of a singular conic ``l m^T + m l^T``, whose adjugate is ``-p p^T`` with p = l x m."""
    adjugate = _adjugate(pair)
    at = torch.arange(len(pair), device=pair.device)
    square, index = (-adjugate.diagonal(dim1=-2, dim2=-1)).max(-1)
    tiny = torch.finfo(pair.dtype).tiny
    p = -adjugate[at, index] * torch.where(square > tiny, square, torch.inf).rsqrt()[:, None]
    product = pair + so3.hat(p)  # 2 l m^T, or its transpose
    largest = product.abs().flatten(1).argmax(-1)
    lines = torch.stack([product[at, largest // 3], product[at, :, largest % 3]], 1)
    return lines / lines.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def _cubic_roots(c3: Tensor, c2: Tensor, c1: Tensor, c0: Tensor) -> Float[Tensor, "B 3"]:
    """The three real roots of ``c3 x^3 + c2 x^2 + c1 x + c0``, or the one three times."""
    c3 = torch.where(c3 == 0, torch.ones_like(c3), c3)
    a, b, c = c2 / c3, c1 / c3, c0 / c3
    third = a / 3
    p, q = b / 3 - third * third, 0.5 * (third * (2 * third * third - b) + c)  # x^3 + 3 p x + 2 q = 0
    discriminant = q * q + p * p * p
    single = -torch.copysign((q.abs() + discriminant.clamp(min=0).sqrt()).pow(1 / 3), q)
    single = single - p / torch.where(single == 0, torch.ones_like(single), single)
    radius = (-p).clamp(min=0).sqrt()
    cosine = (-q / (radius * radius * radius).clamp(min=torch.finfo(q.dtype).tiny)).clamp(-1, 1)
    angles = (cosine.acos()[:, None] + 2 * math.pi * torch.arange(3, device=q.device)) / 3
    x = torch.where(discriminant[:, None] > 0, single[:, None], 2 * radius[:, None] * angles.cos())
    x = x - third[:, None]
    a, b, c = a[:, None], b[:, None], c[:, None]
    for _ in range(2):
        value, slope = ((x + a) * x + b) * x + c, (3 * x + 2 * a) * x + b
        trial = x - value / torch.where(slope == 0, torch.ones_like(slope), slope)
        x = torch.where((((trial + a) * trial + b) * trial + c).abs() < value.abs(), trial, x)
    return x


def _polished(
    x: Float[Tensor, "B 4 3"], forms: Float[Tensor, "B 3 3 3"], sides: Float[Tensor, "B 3"]
) -> tuple[Float[Tensor, "B 4 3"], Float[Tensor, "B 4"]]:
    """Newton steps on ``x^T F_k x = side_k``, as long as they help; and the largest error left."""

    def errors(x: Tensor) -> tuple[Tensor, Tensor]:
        slopes = (
            (forms.flatten(1, 2)[:, None] @ x[..., None]).unflatten(2, (3, 3)).squeeze(-1)
        )  # half the Jacobian
        return slopes, (slopes @ x[..., None]).squeeze(-1) - sides[:, None]

    slopes, error = errors(x)
    for _ in range(_POLISH_STEPS):
        determinant = _determinant(slopes)
        safe = torch.where(determinant == 0, torch.ones_like(determinant), determinant)
        step = 0.5 * (_adjugate(slopes).mT @ error[..., None]).squeeze(-1) / safe[..., None]
        trial = x - step
        trial_slopes, trial_error = errors(trial)
        better = trial_error.abs().amax(-1, keepdim=True) < error.abs().amax(-1, keepdim=True)
        x, error = torch.where(better, trial, x), torch.where(better, trial_error, error)
        slopes = torch.where(better[..., None], trial_slopes, slopes)
    return x, error.abs().amax(-1)


def _frame(triangle: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Orthonormal axes, as columns: along the first side, across it in the plane, along the normal."""
    tiny = torch.finfo(triangle.dtype).tiny
    side, other = triangle[..., 1, :] - triangle[..., 0, :], triangle[..., 2, :] - triangle[..., 0, :]
    x = side * side.square().sum(-1, keepdim=True).clamp(min=tiny).rsqrt()
    normal = torch.linalg.cross(x, other, dim=-1)
    normal = normal - (normal * x).sum(-1, keepdim=True) * x  # rounding, where the triangle is thin
    z = normal * normal.square().sum(-1, keepdim=True).clamp(min=tiny).rsqrt()
    return torch.stack([x, torch.linalg.cross(z, x, dim=-1), z], -1)


def _across(n: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 2 3"]:
    """Two unit vectors perpendicular to n, not zero, and to each other."""
    n = n / n.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    axis = torch.nn.functional.one_hot(n.abs().argmin(-1), 3).to(n)
    u = torch.linalg.cross(n, axis, dim=-1)
    u = u / u.norm(dim=-1, keepdim=True).clamp(min=1e-30)
    return torch.stack([u, torch.linalg.cross(n, u, dim=-1)], -2)


def _adjugate(M: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Of a symmetric matrix the adjugate, of any other its transpose."""
    return torch.linalg.cross(M.roll(-1, -2), M.roll(-2, -2), dim=-1)


def _determinant(M: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    return (M[..., 0, :] * torch.linalg.cross(M[..., 1, :], M[..., 2, :], dim=-1)).sum(-1)
