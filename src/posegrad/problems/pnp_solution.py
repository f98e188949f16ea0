"""The answer of :func:`posegrad.solve_pnp`."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from posegrad import _pytree
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status
from posegrad.pose import Pose


@_pytree.register
@dataclass(frozen=True, eq=False)
class PnPSolution(Solution):
    """Answer of :func:`solve_pnp`, per item of the batch ``(...)``; only ``pose`` carries gradients.

    ``pose`` is finite for every item, and the identity one unit ahead where the input was bad; use it, and what
    you compute from it, only where ``ok``: see :func:`posegrad.masked_mean`. ``cost`` is in pixels squared,
    ``decrement`` in pixels, ``hessian`` (..., 6, 6) in the tangent [rotation (rad), translation]. INFEASIBLE
    means: points behind the camera, or outside of its model's field.

    With ``num_solutions=k``, ``alternatives`` is a solution of batch shape (..., k): the best k minima that differ,
    best first (so that the first of them is the answer itself), each with its own gradient; where there are fewer,
    the status is NO_OTHER. ``ambiguity`` (...) is the best cost over the second best, in [0, 1]: 0 where there is no
    second, 1 where both fit exactly. Otherwise both are None.

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(2, 6)
    >>> pg.solve_pnp(scene.points2d, scene.points3d, scene.K).describe()
    '2 x CONVERGED: Converged to a minimum: the answer and its gradient are exact.'
    """

    alternatives: "PnPSolution | None" = None
    ambiguity: Float[Tensor, "*batch"] | None = None

    _ADVICE: ClassVar[dict[Status, str]] = {
        Status.INFEASIBLE: "Points behind the camera, or outside of the model's field: check the init, the axes (z "
        "forward), the camera's signs and its distortion.",
        Status.DEGENERATE: "The data do not determine the pose (collinear or coincident points, a loss that rejects "
        "nearly all of them, a critical configuration): add points off the line, or a prior.",
        Status.TOO_FEW_POINTS: "Fewer than 3 unmasked points of positive weight.",
    }

    @property
    def pose(self) -> Pose:
        """``cam_from_world``, R (..., 3, 3) and t (..., 3) in the unit of ``points3d``."""
        return self.variable

    @classmethod
    def of(
        cls,
        R: Tensor,
        t: Tensor,
        status: Tensor,
        cost: Tensor,
        num_steps: Tensor,
        decrement: Tensor,
        hessian: Tensor,
    ) -> "PnPSolution":
        """From its parts, without the checks of the constructors, which take longer than to solve an item."""
        pose, solution = object.__new__(Pose), object.__new__(cls)
        pose.__dict__.update(R=R, t=t)
        solution.__dict__.update(
            variable=pose,
            status=status,
            cost=cost,
            num_steps=num_steps,
            decrement=decrement,
            hessian=hessian,
            alternatives=None,
            ambiguity=None,
        )
        return solution
