"""Gauss-Newton with a line search, and Powell's dogleg: for sums of squares."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posegrad.optim.descent import Descent, Trial
from posegrad.optim.linear import equilibrate, solve_positive
from posegrad.optim.problem import Quadratic


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Descent):
    """Steps ``J^T J delta = -g``, halved until the cost falls; then as :class:`posegrad.LevenbergMarquardt`.

    The cheapest from a good start. J must have full rank on the way: an item where it has not keeps its start.

    Reference: Nocedal & Wright, "Numerical Optimization" (2006), section 10.3.

    >>> import posegrad as pg
    >>> def valley(x, _):
    ...     return torch.stack([10 * (x[:, 1] - x[:, 0] ** 2), 1 - x[:, 0]], -1)
    >>> solution = pg.least_squares(valley, torch.tensor([[-1.2, 1.0]]), solver=pg.GaussNewton())
    >>> solution.variable, solution.num_steps
    (tensor([[1., 1.]]), tensor([20]))
    """

    exact: ClassVar[bool] = False
    first_control: ClassVar[float] = 1.0  # the part of the full step
    least_control: ClassVar[float] = 1e-9

    def propose(self, model: Quadratic, control: Tensor) -> Trial:
        full, positive = solve_positive(model.hessian, -model.gradient)
        with torch.no_grad():
            square = (-(model.gradient * full).sum(-1)).clamp(min=0)
        predicted = control * (1 - 0.5 * control) * square
        decrement = torch.where(positive, square.sqrt(), torch.inf)
        return Trial(control[:, None] * full, predicted, control, positive, decrement)

    def adapt(self, control: Tensor, trial: Trial, gain: Tensor, accepted: Tensor) -> Tensor:
        smaller = torch.where(trial.usable, 0.5 * control, 0.0)
        return torch.where(accepted, (2 * control).clamp(max=1.0), smaller)


@dataclass(frozen=True, kw_only=True)
class Dogleg(Descent):
    """Powell's dogleg: within a trust region, from steepest descent to the Gauss-Newton step along two lines.

    One factorisation a step, as Gauss-Newton, and global convergence, as Levenberg-Marquardt; where J loses rank it
    goes along the gradient. The region is a ball after scaling J to unit columns, so units do not matter.

    Reference: Powell (1970); Nocedal & Wright, "Numerical Optimization" (2006), section 4.1.

    >>> import posegrad as pg
    >>> def cubic(x, _):                                 # J is singular at the start, where Gauss-Newton has no step
    ...     return torch.stack([x[:, 0] ** 3 - 8, x.sum(-1) - 1], -1)
    >>> pg.least_squares(cubic, torch.zeros(1, 2), solver=pg.Dogleg()).variable
    tensor([[ 2., -1.]])
    """

    exact: ClassVar[bool] = False
    first_control: ClassVar[float] = 1e30  # the radius: no bound on the first step
    least_control: ClassVar[float] = 1e-30

    def propose(self, model: Quadratic, control: Tensor) -> Trial:
        A, scale = equilibrate(model.hessian)
        g = scale * model.gradient
        newton, positive = solve_positive(A, -g)
        square = g.square().sum(-1)
        curvature = (g * (A @ g[..., None]).squeeze(-1)).sum(-1)
        tiny = torch.finfo(g.dtype).tiny
        cauchy = -(square / torch.where(curvature > tiny, curvature, torch.ones_like(square)))[:, None] * g
        with torch.no_grad():
            far = torch.where(positive[:, None], newton - cauchy, torch.zeros_like(newton))
            near_length = cauchy.square().sum(-1).sqrt().clamp(min=tiny)
            # |cauchy + part far| = radius
            a, b = far.square().sum(-1), (cauchy * far).sum(-1)
            c = (near_length.square() - control.square()).clamp(max=0)
            part = (-c / (b + (b.square() - a * c).clamp(min=0).sqrt()).clamp(min=tiny)).clamp(max=1)
            inside = near_length < control
            whole = torch.where(inside, 1.0, (control / near_length).clamp(max=1))
            part = torch.where(inside & positive, part, 0.0)
        step = whole[:, None] * cauchy + part[:, None] * torch.where(positive[:, None], newton - cauchy, 0.0)
        with torch.no_grad():
            predicted = -(g * step).sum(-1) - 0.5 * (step * (A @ step[..., None]).squeeze(-1)).sum(-1)
            decrement = (-(g * newton).sum(-1)).clamp(min=0).sqrt()
            decrement = torch.where(positive, decrement, torch.where(square > 0, torch.inf, 0.0))
            length, usable = step.square().sum(-1).sqrt(), step.isfinite().all(-1) & (curvature > tiny)
        return Trial(scale * step, predicted, length, usable | (square == 0), decrement)

    def adapt(self, control: Tensor, trial: Trial, gain: Tensor, accepted: Tensor) -> Tensor:
        grown = torch.where((gain > 0.75) & (trial.length > 0.99 * control), 2 * control, control)
        shrunk = 0.25 * torch.minimum(control, trial.length)
        kept = torch.where(accepted & (gain >= 0.25), grown, shrunk)
        return torch.where(trial.usable, kept, 0.0)
