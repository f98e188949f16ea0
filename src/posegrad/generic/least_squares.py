"""Nonlinear least squares on manifolds, as a differentiable function."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from posegrad.generic.door import admit, check_function
from posegrad.generic.layer import check_adjoint, solve
from posegrad.generic.problems import Fit, Given
from posegrad.manifolds import Manifold
from posegrad.optim.adjoint import Adjoint, Implicit
from posegrad.optim.compiling import uncompiled
from posegrad.optim.conjugate_gradients import ConjugateGradients
from posegrad.optim.gauss_newton import Dogleg, GaussNewton
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt
from posegrad.optim.solution import Solution
from posegrad.robust import RobustLoss


@uncompiled
def least_squares(
    residual: Callable[[Any, Any], Float[Tensor, "B *M"]],
    init: Any,
    args: Any = None,
    *,
    manifold: Manifold | Any = None,
    loss: RobustLoss | None = None,
    jacobian: Callable[[Any, Any], Float[Tensor, "B *M D"]] | None = None,
    solver: LevenbergMarquardt | GaussNewton | Dogleg | ConjugateGradients = LevenbergMarquardt(),  # noqa: B008 (frozen)
    adjoint: Adjoint = Implicit(),  # noqa: B008 (frozen)
) -> Solution:
    """Solve a batch of nonlinear least-squares problems from a start, with exact gradients for ``args``.

    ``argmin_x 1/2 sum_i rho(|r_i(x; args)|^2)``, x on a manifold

    All tensors have the batch in front. Items are independent: one that fails gets a status, a finite answer and a
    zero gradient, and changes nothing for the others.

    Args:
        residual: ``residual(variable, args)`` -> (B, M), or (B, N, K) for N blocks of K numbers (points, say) whose
            squared norm the loss takes. Made of torch operations that treat items alike and apart; it is called with
            batches of other sizes too, and with float64. NaN or infinity says: not defined here, and no step leads
            there. Tensors that it closes over are constants; it changes none in place that it is given.
        init: start: a tensor (B, ...), a :class:`posegrad.Pose`, or a tuple, list or dict of them; B may be 1 where
            ``args`` has more. No gradient goes to it.
        args: what the residual depends on: any pytree of tensors (B, ...), or (1, ...) where shared by the batch.
        manifold: where the variable lives, see :mod:`posegrad.manifolds`; for a tuple, list or dict one of the same
            structure, None where plain. Default: ``SE3()`` for a Pose, ``Euclidean()`` for a tensor.
        loss: rho, a robust loss of :mod:`posegrad.robust`: of every number of (B, M), of every block of (B, N, K).
            Its scale, a number or (B,), is in the unit of the residual, and gets a gradient.
        jacobian: the residual's derivative by the manifold's tangent, (B, M, D) or (B, N, K, D), of the same
            arguments, where it is cheaper than automatic differentiation. The end of the solve and the gradient take
            the exact Hessian of the residual in any case.
        solver: ``LevenbergMarquardt()``, ``GaussNewton()`` or ``Dogleg()``; for hundreds of dimensions and more
            ``ConjugateGradients()``, which makes no matrix.
        adjoint: ``Implicit()``, ``Implicit(hessian="gauss_newton")`` or ``Unrolled()``.

    Returns:
        A :class:`Solution` in the dtype of the init, its ``hessian`` (B, D, D) in the manifold's tangent. Work is
        done in float64 (on devices that have it).

    Raises:
        TypeError, ValueError: for a wrong call, naming the argument. Bad values of an item never raise.

    Reference: Nocedal & Wright, "Numerical Optimization" (2006), chapter 10; gradients: Gould et al.,
    arXiv:1607.05447 (2016).

    >>> import posegrad as pg
    >>> s = torch.linspace(0, 1, 5, dtype=torch.float64)
    >>> def residual(x, y):                        # y = a exp(b s)
    ...     return x[:, :1] * (x[:, 1:] * s).exp() - y
    >>> y = torch.stack([2 * s.exp(), (3 * s).exp()]).requires_grad_()
    >>> solution = pg.least_squares(residual, torch.ones(1, 2, dtype=torch.float64), y)
    >>> solution.variable.detach().round(decimals=6)
    tensor([[2., 1.],
            [1., 3.]], dtype=torch.float64)
    >>> solution.variable.sum().backward()
    >>> y.grad.shape
    torch.Size([2, 5])
    """
    check_function("residual", residual)
    if jacobian is not None:
        check_function("jacobian", jacobian)
    if not isinstance(solver, LevenbergMarquardt | GaussNewton | Dogleg | ConjugateGradients):
        raise TypeError(
            f"solver: got {solver!r}, expected pg.LevenbergMarquardt(...), pg.GaussNewton(...), pg.Dogleg(...) or "
            "pg.ConjugateGradients(...)"
        )
    check_adjoint(adjoint)
    item = admit(init, args, manifold, loss)
    problem = Fit(residual, item.manifold, jacobian)
    return solve(problem, item, Given(item.data, item.loss), solver, adjoint)
