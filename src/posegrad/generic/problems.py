"""Problems made of a user's function and a manifold."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree
from posegrad.manifolds import Inferred, Manifold
from posegrad.optim import batch
from posegrad.optim.lagrangian import Lagrangian
from posegrad.optim.problem import Problem, Quadratic, second_order, value_and_jacobian
from posegrad.robust import Rho, RobustLoss, Squared


class OnManifold(Problem):
    """A problem whose variable moves as a manifold says."""

    def __init__(self, manifold: Manifold) -> None:
        self.manifold = manifold

    def zero(self, variable: Any) -> Float[Tensor, "B D"]:
        first = _pytree.flatten(variable)[0][0]
        return first.new_zeros(first.shape[0], self.manifold.dimension(variable))

    def size(self, variable: Any) -> Float[Tensor, "B D"]:
        return self.manifold.size(variable)

    def retract(self, variable: Any, delta: Float[Tensor, "B D"]) -> Any:
        return self.manifold.retract(variable, delta)

    def near(self, variable: Any, delta: Float[Tensor, "B D"]) -> Any:
        return self.manifold.near(variable, delta)

    def admit(self, variable: Any) -> tuple[Any, Bool[Tensor, " B"]]:
        """On the manifold; far from it some point of it."""
        near = self.manifold.contains(variable)
        return self.manifold.project(batch.where(near, variable, self.manifold.harmless(variable))), near

    def feasible(self, variable: Any, args: Any) -> Bool[Tensor, " B"]:
        return self.cost(variable, args).isfinite()


class Given(NamedTuple):
    """Arguments of a :class:`Fit` with a loss; without one they are the data alone."""

    data: Any
    loss: RobustLoss


class Fit(OnManifold):
    """``1/2 sum_i rho(|r_i|^2)`` of a user's residual (B, M), or (B, N, K) for N blocks of K numbers.

    Args:
        function: the residual, of variable and data.
        manifold: where the variable lives.
        derivative: None, or the residual's derivative in the tangent, (B, M, D) or (B, N, K, D).
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Tensor],
        manifold: Manifold,
        derivative: Callable[[Any, Any], Tensor] | None = None,
    ) -> None:
        super().__init__(manifold)
        self.function, self.derivative = function, derivative

    def residual(self, variable: Any, args: Any) -> Float[Tensor, "B M"]:
        """Times the root of ``rho'``, which is held constant: ``J^T J`` is the Gauss-Newton matrix."""
        blocks = self._blocks(variable, args)
        factor = _rho(args, blocks).first.detach()
        return (blocks * factor.sqrt()[..., None]).flatten(1)

    def cost(self, variable: Any, args: Any) -> Float[Tensor, " B"]:
        return 0.5 * _rho(args, self._blocks(variable, args)).value.sum(-1)

    def quadratic(self, variable: Any, args: Any, *, exact: bool) -> Quadratic:
        zero = self.zero(variable)
        if exact:
            cost, gradient, hessian = second_order(
                lambda delta: self.cost(self.near(variable, delta), args), zero
            )
            return Quadratic(cost, gradient, hessian, cost.isfinite())
        if self.derivative is None:
            blocks, J = value_and_jacobian(lambda d: self._blocks(self.near(variable, d), args), zero)
        else:
            blocks = self._blocks(variable, args)
            J = _given_derivative(self.derivative(variable, _data(args)), blocks, zero.shape[1])
        rho = _rho(args, blocks)
        weighted = rho.first[..., None] * blocks
        J = J.flatten(1, 2)
        gradient = (J.mT @ weighted.flatten(1)[..., None]).squeeze(-1)
        root = rho.first[..., None].expand_as(blocks).flatten(1)[..., None]
        cost = 0.5 * rho.value.sum(-1)
        return Quadratic(cost, gradient, J.mT @ (root * J), cost.isfinite())

    def _blocks(self, variable: Any, args: Any) -> Float[Tensor, "B N K"]:
        value, size = self.function(variable, _data(args)), batch_size(variable)
        if not isinstance(value, Tensor):
            raise TypeError(f"residual: returned {type(value).__name__}, expected a torch.Tensor")
        if value.ndim not in (2, 3) or value.shape[0] != size:
            raise ValueError(
                f"residual: returned shape {tuple(value.shape)} for a batch of {size}, expected ({size}, M), or "
                f"({size}, N, K) for N blocks of K numbers; all tensors have the batch in front"
            )
        check_dtype(value, variable, "residual")
        return value[..., None] if value.ndim == 2 else value


class Objective(OnManifold):
    """A user's objective, (B,) numbers of variable and data."""

    def __init__(self, function: Callable[[Any, Any], Tensor], manifold: Manifold) -> None:
        super().__init__(manifold)
        self.function = function

    def residual(self, variable: Any, args: Any) -> Float[Tensor, "B M"]:
        """There is none."""
        raise NotImplementedError("an objective has no residuals")

    def cost(self, variable: Any, args: Any) -> Float[Tensor, " B"]:
        return values(self.function, variable, args, "objective", scalar=True)

    def quadratic(self, variable: Any, args: Any, *, exact: bool) -> Quadratic:
        """With the exact Hessian in any case."""
        cost, gradient, hessian = second_order(
            lambda delta: self.cost(self.near(variable, delta), args), self.zero(variable)
        )
        return Quadratic(cost, gradient, hessian, cost.isfinite())


def residual_problem(
    residual: Callable[[Any, Any], Float[Tensor, "B *M"]], *, manifold: Manifold | Any = None
) -> Problem:
    """What :func:`posegrad.least_squares` minimises, as a problem for :func:`posegrad.argmin_layer`.

    Args:
        residual, manifold: as there.

    >>> import posegrad as pg
    >>> layer = pg.argmin_layer(lambda x: x.mean(-1, keepdim=True), pg.residual_problem(lambda m, x: m - x))
    >>> x = torch.tensor([[1.0, 2.0, 6.0]], requires_grad=True)
    >>> torch.autograd.grad(layer(x).variable.sum(), x)[0]
    tensor([[0.3333, 0.3333, 0.3333]])
    """
    return Fit(residual, manifold if isinstance(manifold, Manifold) else Inferred(manifold))


def objective_problem(
    objective: Callable[[Any, Any], Float[Tensor, " B"]],
    *,
    manifold: Manifold | Any = None,
    equality: Callable[[Any, Any], Float[Tensor, "B P"]] | None = None,
    inequality: Callable[[Any, Any], Float[Tensor, "B Q"]] | None = None,
) -> Problem:
    """What :func:`posegrad.minimise` minimises, as a problem for :func:`posegrad.argmin_layer`.

    Args:
        objective, manifold, equality, inequality: as there. The solver that is wrapped returns the point alone: the
            multipliers of the constraints that it lies on follow from it.

    >>> import posegrad as pg
    >>> ball = pg.objective_problem(
    ...     lambda x, y: 0.5 * (x - y).square().sum(-1),
    ...     inequality=lambda x, y: x.square().sum(-1, keepdim=True) - 1,
    ... )
    >>> layer = pg.argmin_layer(lambda y: y / y.norm(dim=-1, keepdim=True).clamp(min=1), ball)
    >>> y = torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> torch.autograd.grad(layer(y).variable[0, 0], y)[0]
    tensor([[ 0.1280, -0.0960]])
    """
    problem = Objective(objective, manifold if isinstance(manifold, Manifold) else Inferred(manifold))
    if equality is None and inequality is None:
        return problem
    return Lagrangian(problem, checked(equality, "equality"), checked(inequality, "inequality"))


def checked(function: Callable[[Any, Any], Tensor] | None, name: str) -> Callable[[Any, Any], Tensor] | None:
    """A constraint that tells when it returns something else than (B, M)."""
    if function is None:
        return None
    return lambda variable, args: values(function, variable, args, name, scalar=False)


def values(
    function: Callable[[Any, Any], Tensor], variable: Any, data: Any, name: str, *, scalar: bool
) -> Tensor:
    """What a user's function returns, checked: (B,) if scalar, else (B, M)."""
    value, size = function(variable, data), batch_size(variable)
    shape = (size,) if scalar else (size, "M")
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: returned {type(value).__name__}, expected a torch.Tensor")
    if value.ndim != len(shape) or value.shape[0] != size:
        wanted = f"({size},)" if scalar else f"({size}, M)"
        raise ValueError(
            f"{name}: returned shape {tuple(value.shape)} for a batch of {size}, expected {wanted}; all tensors have "
            "the batch in front"
        )
    check_dtype(value, variable, name)
    return value


def check_dtype(value: Tensor, variable: Any, name: str) -> None:
    """Raise where what a user's function returns has lost the precision of what it was called with."""
    wanted = _pytree.flatten(variable)[0][0].dtype
    if torch.promote_types(value.dtype, wanted) != value.dtype:
        raise TypeError(
            f"{name}: returned {value.dtype} for a variable of {wanted}, expected {wanted}; cast constants to the "
            "variable's dtype, not the variable to theirs"
        )


def batch_size(variable: Any) -> int:
    """B."""
    return _pytree.flatten(variable)[0][0].shape[0]


def _rho(args: Any, blocks: Float[Tensor, "B N K"]) -> Rho:
    s = blocks.square().sum(-1)
    if not isinstance(args, Given) or isinstance(args.loss, Squared):
        return Rho(s, torch.ones_like(s), torch.zeros_like(s))
    return args.loss.evaluate(s)


def _data(args: Any) -> Any:
    return args.data if isinstance(args, Given) else args


def _given_derivative(J: Tensor, blocks: Tensor, dimension: int) -> Float[Tensor, "B N K D"]:
    size, count, width = blocks.shape
    if not isinstance(J, Tensor) or J.numel() != blocks.numel() * dimension or J.shape[0] != size:
        got = tuple(J.shape) if isinstance(J, Tensor) else type(J).__name__
        raise ValueError(
            f"jacobian: returned {got}, expected ({size}, {count * width}, {dimension}): the derivative of "
            "the residual by the manifold's tangent"
        )
    return J.reshape(size, count, width, dimension)
