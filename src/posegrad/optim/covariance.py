"""How far the noise in the data moves the minimiser: its covariance in the tangent, to first order.

All functions are differentiable. To get the whole derivative of a covariance, evaluate the Hessian at a minimiser that
carries its own gradient: ``problem.quadratic(solution.variable, args, exact=True).hessian``.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim.linear import inverse_positive
from posegrad.optim.problem import Args, Problem, Variable


class Covariance(NamedTuple):
    """Covariance in the tangent, and where there is one.

    Elsewhere (a Hessian that is not positive definite, as a failed item's is) the matrix says that nothing is known:
    infinite variances, zero covariances and a zero gradient. Not NaN; and not zero, which would say that everything is.
    """

    matrix: Float[Tensor, "*batch D D"]
    ok: Bool[Tensor, "*batch"]


class Estimate(NamedTuple):
    """An estimated noise variance; infinite, with a zero gradient, where not ``ok``."""

    value: Float[Tensor, "*batch"]
    ok: Bool[Tensor, "*batch"]


def inverse_hessian_covariance(
    H: Float[Tensor, "*batch D D"], noise_variance: float | Float[Tensor, "*#batch"] = 1.0
) -> Covariance:
    """Covariance ``sigma^2 H^-1`` of the minimiser of ``1/2 sum_i w_i r_i^2``.

    Right, to first order in the noise, if the noise of residual i is independent with variance ``sigma^2 / w_i``. With
    priors among the residuals it is the posterior's (Laplace's approximation).

    Args:
        H: (..., D, D) Hessian of the cost at the minimum, exact or Gauss-Newton's.
        noise_variance: sigma^2 >= 0, a number or (...), in the unit of the squared residuals; 1 if the weights are
            inverse variances.

    Returns:
        :class:`Covariance`; not ok also where the noise variance is negative, infinite or NaN.

    Reference: Triggs et al., "Bundle Adjustment - A Modern Synthesis", section 3.3 (1999).

    >>> inverse_hessian_covariance(torch.tensor([[4.0]]), 2.0).matrix
    tensor([[0.5000]])
    """
    inverse, positive = inverse_positive(H)
    variance = torch.as_tensor(noise_variance, dtype=H.dtype, device=H.device)
    usable = (variance >= 0) & variance.isfinite()
    safe = torch.where(usable, variance, 1.0)
    return _unknown_elsewhere(safe[..., None, None] * inverse, positive & usable)


def sandwich_covariance(
    H: Float[Tensor, "*batch D D"],
    gradients: Float[Tensor, "*batch N D"],
    *,
    correction: float | Float[Tensor, "*#batch"] = 1.0,
    known: Float[Tensor, "*batch D D"] | None = None,
) -> Covariance:
    """Covariance ``H^-1 (sum_i g_i g_i^T) H^-1`` of a minimiser of ``sum_i f_i``, with g_i the gradient of f_i there.

    Asks nothing about the size of the noise or the shape of its distribution, only that the data are independent: right
    for robust losses, for weights that are no inverse variances, and for noise that differs between the data. In return
    it needs data enough that their sum of products is near its mean: tens per dimension. Data without a gradient
    (masked, or beyond a redescending loss) add nothing.

    Args:
        H: (..., D, D) *exact* Hessian of the cost at the minimum.
        gradients: (..., N, D) gradient by the tangent of each datum's cost (for a 2D point: of its two residuals
            together); their sum is zero at the minimum.
        correction: multiplies the result. The minimum fits a part of the noise, which makes the plain form too small:
            ``M / (M - D)`` for M residuals of equal leverage.
        known: (..., D, D) added to the sum, after the correction: covariance of the gradient of what stands in the cost
            beside the data. For a Gaussian prior that is its information.

    Reference: White, Econometrica 48 (1980); Huber, "Robust Statistics", section 6.3 (1981).

    >>> sandwich_covariance(torch.tensor([[4.0]]), torch.tensor([[1.0], [-1.0]])).matrix
    tensor([[0.1250]])
    """
    inverse, positive = inverse_positive(H)
    finite = positive & gradients.detach().isfinite().all(-1).all(-1)
    if known is not None:
        finite = finite & known.detach().isfinite().all(-1).all(-1)
    influence = torch.where(finite[..., None, None], gradients, 0.0) @ inverse
    factor = torch.as_tensor(correction, dtype=H.dtype, device=H.device)
    matrix = factor[..., None, None] * (influence.mT @ influence)
    if known is not None:
        matrix = matrix + inverse @ torch.where(finite[..., None, None], known, 0.0) @ inverse
    return _unknown_elsewhere(matrix, finite)


def noise_variance(
    cost: Float[Tensor, "*batch"], num_residuals: Int[Tensor, "*#batch"] | int, dimension: int
) -> Estimate:
    """Unbiased estimate ``sigma^2 = 2 cost / (M - D)`` of the noise from what is left at the minimum.

    For weights w_i it is the variance of a residual of weight 1. Means nothing under a robust loss, whose cost grows
    less than the noise, or with priors, whose scale is their own.

    Args:
        cost: (...) ``1/2 sum w_i r_i^2`` at the minimum.
        num_residuals: M, numbers counted one by one (two for a 2D point), only those of positive weight.
        dimension: D of the tangent.

    Returns:
        :class:`Estimate`, not ok where ``M <= D``.

    >>> noise_variance(torch.tensor([3.0, 0.0]), torch.tensor([8, 6]), 6).value
    tensor([3., inf])
    """
    freedom = torch.as_tensor(num_residuals, device=cost.device) - dimension
    ok = (freedom > 0) & cost.detach().isfinite()
    safe = torch.where(ok, cost, 0.0)
    value = torch.where(ok, 2 * safe / freedom.clamp(min=1), torch.inf)
    return Estimate(value, ok)


def datum_gradients(problem: Problem, variable: Variable, args: Args) -> Float[Tensor, "B M D"]:
    """Gradient ``r_i dr_i/d delta`` of each residual's share of the cost ``1/2 sum r_i^2``, for the sandwich.

    For a problem whose cost is half its squared residuals; where several of them make one datum, add theirs up.
    """
    return problem.residual(variable, args)[..., None] * problem.jacobian(variable, args)


def _unknown_elsewhere(matrix: Tensor, ok: Tensor) -> Covariance:
    size = matrix.shape[-1]
    unknown = torch.full((size,), torch.inf, dtype=matrix.dtype, device=matrix.device).diag()
    return Covariance(torch.where(ok[..., None, None], matrix, unknown), ok)
