"""A fixed number of damped Gauss-Newton steps, for damping that a network learns."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.optim import batch
from posegrad.optim.adjoint import harmless
from posegrad.optim.linear import equilibrate
from posegrad.optim.problem import Args, Problem, Quadratic, Variable

Damping = float | Tensor | Callable[[int, Quadratic], Tensor]


@_pytree.register
@dataclass(frozen=True, eq=False)
class DampedPath:
    """The iterates of :func:`posegrad.damped_steps`; everything but ``taken`` and ``ok`` carries gradients.

    Args:
        iterates: the K + 1 variables, the start first, each with the batch in front.
        cost: (K + 1, B) at the iterates; zero, without gradient, where not ok.
        taken: (K, B) False where a step was not taken: the damped matrix was not positive definite, or the step led
            out of where the problem is defined.
        ok: (B,) False for an item that was not finite (squared, too) or not defined at its start: it stays there, and
            its gradient is zero.

    >>> import posegrad as pg
    >>> problem = pg.residual_problem(lambda x, y: x - y)
    >>> path = pg.damped_steps(problem, torch.zeros(1, 1), torch.ones(1, 1), damping=1.0, steps=2)
    >>> torch.cat(path.iterates).T, path.cost.T
    (tensor([[0.0000, 0.5000, 0.7500]]), tensor([[0.5000, 0.1250, 0.0312]]))
    """

    iterates: tuple[Any, ...]
    cost: Float[Tensor, "K1 B"]
    taken: Bool[Tensor, "K B"]
    ok: Bool[Tensor, " B"]

    @property
    def variable(self) -> Any:
        """The last iterate."""
        return self.iterates[-1]


def damped_steps(problem: Problem, init: Variable, args: Args, damping: Damping, *, steps: int) -> DampedPath:
    """Take ``steps`` damped Gauss-Newton steps, differentiable through each: for damping that is learned.

    Every step solves ``(J^T J + diag(damping) diag(J^T J)) delta = -g``. At a minimum the answer does not depend on
    how it was found, so that the solvers' gradients know nothing of damping; after a few steps it does, and a loss on
    the iterates can teach a network how far to trust each of them. There is no test whether the cost falls: that is
    the damping's task. For an answer at the minimum start :func:`posegrad.argmin_layer` or a solver at the last one.
    Works under ``torch.func`` and ``torch.compile``; in an autocast region only the function that gives damping is
    rounded.

    Args:
        problem: what is minimised, as for :func:`posegrad.argmin_layer`: :class:`posegrad.ReprojectionProblem`,
            :func:`posegrad.residual_problem`, or your own.
        init: the start, a tensor or pytree with the batch B in front.
        args: the problem's arguments, a pytree of tensors with the batch, or 1, in front.
        damping: >= 0, relative to the diagonal: a number, a tensor (B,) or, axis by axis of the tangent, (B, D) or
            (1, D); or a function ``damping(step, model)`` that gives one, step counting from 0 and
            ``model`` having ``cost`` (B,), ``gradient`` (B, D) and ``hessian`` (B, D, D) at the iterate.
        steps: K >= 0.

    Raises:
        TypeError, ValueError: wrong types and shapes.

    Degeneracies: where the damped matrix is not positive definite, or damping is negative or not finite, the item
        stays where it is (``taken``).

    Reference: Tang & Tan, "BA-Net", ICLR 2019 (damping from the residuals); Sarlin et al., "Back to the Feature"
        (PixLoc), CVPR 2021, section 3.2 (one for each axis).

    >>> import posegrad as pg
    >>> from posegrad.testing import random_scene
    >>> scene = random_scene(4, 12)
    >>> start = pg.Pose(scene.pose.R, 1.1 * scene.pose.t)
    >>> log_damping = torch.zeros(1, 6, dtype=scene.K.dtype, requires_grad=True)  # of rotation and translation
    >>> args = (scene.points2d, scene.points3d, scene.K[None])
    >>> path = pg.damped_steps(pg.ReprojectionProblem(), start, args, log_damping.exp(), steps=3)
    >>> (path.variable.t - scene.pose.t).square().sum().backward()
    >>> bool((log_damping.grad != 0).all()), len(path.iterates)
    (True, 4)
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"problem: got {problem!r}, expected an instance of a pg.Problem")
    if not isinstance(steps, Integral) or isinstance(steps, bool) or steps < 0:
        raise ValueError(f"steps: got {steps!r}, expected an integer >= 0")
    size = _size(init, args)
    start = _pytree.tree_map(lambda leaf: leaf.expand(size, *leaf.shape[1:]), init)
    device = _pytree.flatten(start)[0][0].device.type
    mixed = torch.is_autocast_enabled(device)

    def chosen(step: int, model: Quadratic) -> Any:
        if not callable(damping):
            return damping
        with torch.autocast(device, enabled=mixed):  # a network's precision is its own matter
            return damping(step, model)

    with torch.autocast(device, enabled=False):
        return _walk(problem, start, args, chosen, steps)


def _walk(
    problem: Problem, start: Variable, args: Args, damping: Callable[[int, Quadratic], Any], steps: int
) -> DampedPath:
    size = len(_pytree.flatten(start)[0][0])
    with torch.no_grad():
        first = problem.quadratic(start, args, exact=False)
        ok = first.feasible & _finite(first)
    args, variable = (_without_the_bad(tree, ok) for tree in (args, start))
    some = ok.any().expand(size)

    def modelled(variable: Variable) -> Quadratic:
        # without a good item the bad ones are still there, and no hook is to see them
        model = problem.quadratic(variable, args, exact=False)
        return batch.where(some, model, _pytree.tree_map(torch.zeros_like, model))

    model = modelled(variable)
    iterates, costs, taken = [variable], [model.cost], []
    for step in range(steps):
        delta, solved = _solve(model, _checked(damping(step, model), model.gradient))
        with torch.no_grad():  # a step that leads nowhere must not enter the graph
            trial, constants = _pytree.tree_map(Tensor.detach, (problem.retract(variable, delta), args))
            there = problem.quadratic(trial, constants, exact=False)
            accepted = solved & there.feasible & _finite(there)
        trial = problem.retract(variable, torch.where(accepted[:, None], delta, torch.zeros_like(delta)))
        variable = batch.where(accepted, trial, variable)
        model = modelled(variable)
        iterates.append(variable)
        costs.append(model.cost)
        taken.append(accepted & ok)
    stay = _pytree.tree_map(Tensor.detach, start)
    return DampedPath(
        tuple(batch.where(ok, iterate, stay) for iterate in iterates),
        torch.stack([torch.where(ok, cost, torch.zeros_like(cost)) for cost in costs]),
        torch.stack(taken) if taken else ok.new_zeros(0, size),
        ok,
    )


def _size(init: Any, args: Any) -> int:
    """The batch's. Raises for what is not made of tensors with it in front."""
    trees = [(name, _pytree.flatten(tree)[0]) for name, tree in (("init", init), ("args", args))]
    if not trees[0][1]:
        raise TypeError(f"init: got {init!r}, expected a tensor or a pytree of tensors")
    for name, leaves in trees:
        for leaf in leaves:
            if not isinstance(leaf, Tensor):
                raise TypeError(f"{name}: got a {type(leaf).__name__} in it, expected a pytree of tensors")
            if leaf.ndim == 0:
                raise ValueError(
                    f"{name}: got a tensor without dimensions in it, expected the batch, or 1, in front"
                )
            if name == "init" and not leaf.is_floating_point():
                raise TypeError(f"init: got dtype {leaf.dtype}, expected floating point")
    sizes = sorted({len(leaf) for _, leaves in trees for leaf in leaves} - {1})
    if len(sizes) > 1:
        raise ValueError(f"init, args: got tensors with {sizes} items in front, expected one number, or 1")
    return sizes[0] if sizes else 1


def _without_the_bad(tree: Any, ok: Bool[Tensor, " B"]) -> Any:
    """Bad items replaced by constant copies of a good one: they may be infinite, and zero times infinity is NaN.
    Without a good one everything is constant."""
    if not len(ok):
        return tree
    donor, some = ok.to(torch.uint8).argmax(0, keepdim=True), ok.any()
    return _pytree.tree_map(lambda leaf: torch.where(some, harmless(leaf, ok, donor), leaf.detach()), tree)


def _finite(model: Quadratic) -> Bool[Tensor, " B"]:
    """Also in what differentiation makes of it: no entry's square overflows."""
    limit = torch.finfo(model.cost.dtype).max ** 0.5
    near = (value.abs() < limit for value in (model.cost[:, None], model.gradient, model.hessian.flatten(1)))
    return torch.cat(tuple(near), -1).all(-1)


def _checked(damping: Any, like: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """As (B, D)."""
    if not isinstance(damping, Tensor | float | int) or (
        isinstance(damping, Tensor) and damping.is_complex()
    ):
        raise TypeError(
            f"damping: got {damping!r}, expected a number, a tensor, or a function of (step, model) that gives one"
        )
    value = torch.as_tensor(damping, dtype=like.dtype, device=like.device)
    shape, (size, dimension) = tuple(value.shape), like.shape
    if value.ndim <= 1 and shape in ((), (1,), (size,)):
        return value.reshape(-1, 1).expand(size, dimension)
    if value.ndim == 2 and shape[0] in (1, size) and shape[1] in (1, dimension):
        return value.expand(size, dimension)
    raise ValueError(
        f"damping: got shape {shape}, expected (), ({size},), or ({size} or 1, {dimension} or 1): items, axes"
    )


def _solve(
    model: Quadratic, damping: Float[Tensor, "B D"]
) -> tuple[Float[Tensor, "B D"], Bool[Tensor, " B"]]:
    """The damped step, zero where there is none, and where there is one."""
    usable = (damping.isfinite() & (damping >= 0)).all(-1)
    damping = torch.where(usable[:, None], damping, torch.ones_like(damping))
    H = model.hessian + torch.diag_embed(damping * model.hessian.diagonal(dim1=-2, dim2=-1))
    scaled, scale = equilibrate(H)
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    with torch.no_grad():
        factor, info = torch.linalg.cholesky_ex(scaled)
        pivot = factor.diagonal(dim1=-2, dim2=-1).square().amin(-1)
        solved = usable & (info == 0) & (pivot > 64 * torch.finfo(H.dtype).eps)
    factor = torch.linalg.cholesky_ex(torch.where(solved[:, None, None], scaled, eye))[0]
    rhs = torch.where(solved[:, None], scale * model.gradient, 0.0)[..., None]
    return scale * torch.cholesky_solve(rhs, factor).squeeze(-1).neg(), solved
