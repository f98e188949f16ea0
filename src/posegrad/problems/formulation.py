"""What is minimised: reprojection, with a prior or without, over all poses or those that a constraint leaves."""

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from posegrad.optim.compose import Confined, Restricted, Sum
from posegrad.optim.problem import Problem
from posegrad.pose import Pose
from posegrad.problems.constraints import Held, Kind
from posegrad.problems.prior_problem import Prior, PriorTerm
from posegrad.problems.reprojection import Correspondences, Reprojection


class Given(NamedTuple):
    """Everything that a pose depends on, in conditioned units; what does not apply is None."""

    data: Correspondences
    prior: PriorTerm | None


_FREE = Kind()


@dataclass(frozen=True)
class Formulation:
    """The problem over a pose, and between a pose and the variable it is minimised over."""

    has_prior: bool = False
    kind: Kind = _FREE

    @functools.cached_property
    def problem(self) -> Problem:
        """Its arguments are made by :meth:`args`, its variable by :meth:`variable`."""
        whole = Sum(Reprojection(), Prior()) if self.has_prior else Reprojection()
        return whole if self.free else Restricted(whole, self.kind.dimension)

    @property
    def free(self) -> bool:
        """Whether the pose is not constrained."""
        return self.kind.dimension == 6

    def args(self, given: Given) -> Any:
        """The problem's arguments."""
        return tuple(given) if self.has_prior else given.data

    def data(self, args: Any) -> Correspondences:
        """Of the problem's arguments, the correspondences."""
        return args[0] if self.has_prior else args

    def replace_data(self, args: Any, data: Correspondences) -> Any:
        """The problem's arguments with other correspondences."""
        return (data, *args[1:]) if self.has_prior else data

    def variable(self, pose: Pose, held: Held | None) -> Any:
        """The nearest variable to a pose."""
        if self.free or held is None:
            return pose
        return Confined(self.kind.onto(pose, held), self.kind.basis(held))

    def pose(self, variable: Any) -> Pose:
        """The pose that a variable stands for."""
        return variable if self.free else variable.point

    def moved(self, variable: Any, pose: Pose) -> Any:
        """A variable at another pose that satisfies the constraint."""
        return pose if self.free else variable._replace(point=pose)

    def whole(self, hessian: Float[Tensor, "B K K"], variable: Any) -> Float[Tensor, "B 6 6"]:
        """A Hessian of the variable's tangent in the pose's: zero where the pose may not move."""
        if self.free:
            return hessian
        basis = variable.basis
        return torch.matmul(basis @ hessian, basis.mT)

    def part(self, hessian: Float[Tensor, "B 6 6"], variable: Any) -> Float[Tensor, "B K K"]:
        """A Hessian of the pose's tangent in the variable's."""
        return hessian if self.free else torch.matmul(variable.basis.mT @ hessian, variable.basis)

    def along(self, gradients: Float[Tensor, "B N 6"], variable: Any) -> Float[Tensor, "B N K"]:
        """Gradients of the pose's tangent in the variable's."""
        return gradients if self.free else gradients @ variable.basis
