"""What every problem over a pose has in common: how it moves."""

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad import so3
from posegrad.optim.problem import Problem
from posegrad.pose import Pose


class PoseProblem(Problem):
    """A problem over a :class:`Pose`, tangent [rotation, translation]: ``R <- cayley(w) R, t <- t + dt``.

    Cayley's map agrees with the exponential up to second order, so derivatives, Hessians and covariances are those of
    ``Pose.retract``.
    """

    dimension = 6

    def retract(self, variable: Pose, delta: Float[Tensor, "B 6"]) -> Pose:
        return Pose(so3.turned(variable.R, delta[:, :3]), variable.t + delta[:, 3:])

    def pullback(self, variable: Pose, cotangent: Pose) -> Float[Tensor, "B 6"]:
        # <G, [w]x R> = <G R^T, [w]x>
        A = cotangent.R @ variable.R.mT
        rotation = torch.stack(
            [A[:, 2, 1] - A[:, 1, 2], A[:, 0, 2] - A[:, 2, 0], A[:, 1, 0] - A[:, 0, 1]], -1
        )
        return torch.cat([rotation, cotangent.t], -1)
