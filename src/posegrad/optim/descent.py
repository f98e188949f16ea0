"""What Gauss-Newton, dogleg and Newton steps have in common: each item tries a step, takes it or adapts its control.

They end close to a minimum. From there Newton's method with the exact Hessian, the same for all solvers, goes to the
limit of the dtype and gives the verdict: see :func:`posegrad.optim.levenberg_marquardt.finish`.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posegrad.optim import batch
from posegrad.optim.levenberg_marquardt import LevenbergMarquardt, finish
from posegrad.optim.levenberg_marquardt import State as Finishing
from posegrad.optim.loop import iterate
from posegrad.optim.problem import Args, Problem, Quadratic, Variable
from posegrad.optim.solution import Solution

# Steps end when one lowers the cost by less than this part (sums of squares alone), or the decrement is this small.
_SMALL_DECREASE, _SMALL_DECREMENT = 1e-2, 1e-6


class Trial(NamedTuple):
    """A step to try."""

    delta: Float[Tensor, "B D"]
    predicted: Float[Tensor, " B"]  # by how much the model says it lowers the cost, > 0
    length: Float[Tensor, " B"]  # in the norm that the control is measured in
    usable: Bool[Tensor, " B"]
    decrement: Float[Tensor, " B"]  # of the model's full step; infinite where the model has none


@dataclass(frozen=True, kw_only=True)
class Descent(ABC):
    """Settings of a solver that takes steps of a quadratic model, and how it makes them.

    Args:
        max_steps: most steps of an item, the exact Newton steps at the end included; >= 1.
        tolerance, singular_below: as in :class:`posegrad.LevenbergMarquardt`.
    """

    max_steps: int = 100
    tolerance: float | None = None
    singular_below: float | None = None

    #: whether the model is made with the exact Hessian, not Gauss-Newton's
    exact: ClassVar[bool]
    #: the first control, and where an item gives up
    first_control: ClassVar[float]
    least_control: ClassVar[float]

    def __post_init__(self) -> None:
        self._finishing()

    @abstractmethod
    def propose(self, model: Quadratic, control: Float[Tensor, " B"]) -> Trial:
        """The step to try."""

    @abstractmethod
    def adapt(
        self,
        control: Float[Tensor, " B"],
        trial: Trial,
        gain: Float[Tensor, " B"],
        accepted: Bool[Tensor, " B"],
    ) -> Float[Tensor, " B"]:
        """The next control; ``gain`` is the actual decrease over the predicted one. Smaller is more careful."""

    def minimise(self, problem: Problem, init: Variable, args: Args) -> Solution:
        """Minimise every item from its start. Differentiable by unrolling when grad mode is on."""
        model = problem.quadratic(init, args, exact=self.exact)
        control = torch.full_like(model.cost.detach(), self.first_control)
        done = ~(model.feasible & model.cost.detach().isfinite())
        state = State(init, model, control, torch.zeros_like(done, dtype=torch.int64), done)
        state = iterate(lambda s, a: self._step(problem, s, a), state, args, max_steps=self.max_steps)
        zero = torch.zeros_like(control)
        end = Finishing(state.variable, state.model, zero, zero, state.steps, state.done)
        return finish(problem, end, args, self._finishing())

    def _finishing(self) -> LevenbergMarquardt:
        try:
            return LevenbergMarquardt(
                max_steps=self.max_steps, tolerance=self.tolerance, singular_below=self.singular_below
            )
        except ValueError as error:
            message = str(error).replace("LevenbergMarquardt", type(self).__name__)
            raise ValueError(message) from None

    def _step(self, problem: Problem, state: "State", args: Args) -> "State":
        old = state.model
        trial = self.propose(old, state.control)
        moved = problem.retract(state.variable, trial.delta)
        new = problem.quadratic(moved, args, exact=self.exact)
        with torch.no_grad():
            eps, size = torch.finfo(old.cost.dtype).eps, old.cost.abs()
            drop, noise = old.cost - new.cost, 64 * eps * (size + size.sqrt() + eps)
            accepted = trial.usable & new.feasible & new.cost.isfinite() & (drop >= -noise) & ~state.done
            gain = drop / trial.predicted.clamp(min=torch.finfo(drop.dtype).tiny)
            control = self.adapt(state.control, trial, gain, accepted)
            ended = trial.usable & (trial.decrement <= _SMALL_DECREMENT * (1 + (2 * size).sqrt()))
            if not self.exact:
                ended = ended | (accepted & (drop < _SMALL_DECREASE * old.cost))
            steps = state.steps + (~state.done).to(state.steps)
            done = state.done | ended | (control < self.least_control) | (steps >= self.max_steps)
            control = torch.where(done, state.control, control)
        return State(
            batch.where(accepted, moved, state.variable),
            batch.where(accepted, new, old),
            control,
            steps,
            done,
        )


class State(NamedTuple):
    """A batch of iterates."""

    variable: Variable
    model: Quadratic
    control: Float[Tensor, " B"]
    steps: Int[Tensor, " B"]
    done: Bool[Tensor, " B"]
