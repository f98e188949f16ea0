"""Newton's method for objectives that need not be convex."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from posegrad.optim.descent import Descent, Trial
from posegrad.optim.linear import equilibrate, solve_positive
from posegrad.optim.problem import Quadratic


@dataclass(frozen=True, kw_only=True)
class Newton(Descent):
    """Damped Newton steps ``(|H| + damping) delta = -g`` with the exact Hessian H, then undamped ones.

    ``|H|`` has H's eigenvectors and the magnitudes of its eigenvalues: every step descends, saddle points repel. All
    after scaling H to unit diagonal, so units do not matter.

    Reference: Nocedal & Wright, "Numerical Optimization" (2006), section 3.4; Dauphin et al., NeurIPS 2014.

    >>> import posegrad as pg
    >>> def wells(x, _):
    ...     return ((x.square() - 1).square() + 0.5 * x).sum(-1)
    >>> solution = pg.minimise(wells, torch.tensor([[0.2], [0.0]]), solver=pg.Newton())
    >>> solution.ok, solution.variable                   # the second starts on top, between the wells
    (tensor([True, True]), tensor([[ 0.9304],
            [-1.0575]]))
    """

    exact: ClassVar[bool] = True
    first_control: ClassVar[float] = 1e30  # one over the damping
    least_control: ClassVar[float] = 1e-12

    def propose(self, model: Quadratic, control: Tensor) -> Trial:
        finite = model.hessian.detach().isfinite().all(-1).all(-1)
        eye = torch.eye(model.hessian.shape[-1], dtype=control.dtype, device=control.device)
        H, scale = equilibrate(torch.where(finite[:, None, None], model.hessian, eye))
        g = scale * model.gradient
        with torch.no_grad():
            values, vectors = torch.linalg.eigh(H.detach())
            floor = 1e-8 * values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(g.dtype).tiny ** 0.5)
            lifted = torch.maximum(values.abs(), floor) + 1 / control[:, None]
            # a constant, so that eigenvectors enter no graph
            change = (vectors * (lifted - values)[:, None]) @ vectors.mT
        step, positive = solve_positive(H + change, -g)
        with torch.no_grad():
            along = (-(g * step).sum(-1)).clamp(min=0)
            convex = (values[:, 0] > floor[:, 0]) & (control > 1e6)
            # without a gradient there is nowhere to go: the verdict is the Hessian's
            stuck = along.sqrt() <= 64 * torch.finfo(g.dtype).eps * (1 + (2 * model.cost.abs()).sqrt())
            decrement = torch.where(convex | stuck, along.sqrt(), torch.inf)
        return Trial(scale * step, 0.5 * along, torch.ones_like(control), positive & finite, decrement)

    def adapt(self, control: Tensor, trial: Trial, gain: Tensor, accepted: Tensor) -> Tensor:
        larger = torch.where(control > 1e6, self.first_control, 10 * control)
        larger = torch.where(gain > 0.25, larger, control)
        return torch.where(accepted, larger, torch.where(control > 1e3, 1e3, 0.1 * control))
