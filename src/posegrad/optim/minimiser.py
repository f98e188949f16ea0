"""A minimisation as one differentiable operation that every transform of torch.func can take apart.

The solve runs *inside* an ``autograd.Function``, on plain tensors without a graph: whatever transforms are at work
outside, the solver may ask the host questions or leave torch altogether. Around it stand the rules that transforms
need: backward, forward mode, and how one more dimension is folded into the batch.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from posegrad import _pytree
from posegrad.optim.adjoint import Implicit, implicit_gradient
from posegrad.optim.compiling import uncompiled
from posegrad.optim.problem import Args, Problem
from posegrad.optim.solution import Solution
from posegrad.optim.status import Status

Hints = Any  # what a solver reads beside the args: a pytree of tensors with the batch in front, and of None


def minimiser(
    solve: Callable[[Args, Hints], Solution],
    problem: Problem,
    adjoint: Implicit,
    args: Args,
    hints: Hints = None,
    *,
    keep_hessian: bool = False,
) -> Solution:
    """``solve(args, hints)``, whose variable has the implicit gradient by ``args``: zero where not ok.

    Args:
        solve: gets plain tensors without a graph and any number of items; may leave torch. All tensors of its
            answer have the full batch in front, none is one of its arguments. It closes over no tensors: transforms
            could not see them.
        problem: what it minimises.
        adjoint: the gradient's settings.
        args: pytree of tensors; the leading dimension is the batch, or 1 where shared by it.
        hints: likewise, or None; no gradient goes to them.
        keep_hessian: the solution's ``hessian`` is exactly the problem's, in its tangent at the solution's variable,
            wherever that is ok: then a gradient that is not differentiated again need not compute it.
    """
    arg_leaves, arg_structure = _pytree.flatten(args)
    hint_leaves, hint_structure = _pytree.flatten(hints)
    call = _Call(solve, problem, adjoint, arg_structure, hint_structure, len(arg_leaves), keep_hessian)
    *variable, status, cost, num_steps, decrement, hessian = _Minimiser.apply(call, *arg_leaves, *hint_leaves)
    variable = _pytree.unflatten(call.variable_structure, variable)
    return Solution(variable, status, cost, num_steps, decrement, hessian)


@dataclass
class _Call:
    """What is not a tensor. The structure of the variable is known once the solver has run."""

    solve: Callable[[Args, Hints], Solution]
    problem: Problem
    adjoint: Implicit
    arg_structure: Any
    hint_structure: Any
    num_args: int
    keep_hessian: bool
    variable_structure: Any = None

    def run(self, leaves: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        constants = [leaf.detach() for leaf in leaves]
        args = _pytree.unflatten(self.arg_structure, constants[: self.num_args])
        hints = _pytree.unflatten(self.hint_structure, constants[self.num_args :])
        with _without_autocast(constants[0].device):
            solution = self.solve(args, hints)
        variable, self.variable_structure = _pytree.flatten(solution.variable)
        numbers = (solution.cost, solution.num_steps, solution.decrement, solution.hessian)
        # what is handed out gets a history: not the solver's own tensors, which it may keep
        return (*(leaf.detach() for leaf in variable), solution.status, *numbers)

    def gradients(
        self, saved: list[Tensor], cotangents: Iterable[Tensor | None], needed: list[bool]
    ) -> list[Tensor | None]:
        """Of the args that need one, in differentiable operations of args, minimiser and cotangents."""
        args, variable, (status, hessian) = saved[: self.num_args], saved[self.num_args : -2], saved[-2:]
        cotangent = (
            torch.zeros_like(v) if c is None else c for v, c in zip(variable, cotangents, strict=True)
        )
        with _without_autocast(status.device):
            return implicit_gradient(
                self.problem,
                self.adjoint,
                _pytree.unflatten(self.variable_structure, variable),
                _pytree.unflatten(self.variable_structure, cotangent),
                args,
                self.arg_structure,
                needed,
                status == int(Status.CONVERGED),
                hessian if self.keep_hessian else None,
            )


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    enabled = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if enabled else nullcontext()


_NUM_NUMBERS = 4  # cost, num_steps, decrement, hessian: the last outputs


class _Minimiser(torch.autograd.Function):
    """(call, *args, *hints) -> (*variable, status, cost, num_steps, decrement, hessian)."""

    @staticmethod
    def forward(call: _Call, *leaves: Tensor) -> tuple[Tensor, ...]:
        return call.run(leaves)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        call: _Call = inputs[0]
        *variable, status = output[:-_NUM_NUMBERS]
        ctx.call, ctx.num_hints = call, len(inputs) - 1 - call.num_args
        ctx.needed = list(ctx.needs_input_grad[1 : 1 + call.num_args])
        ctx.mark_non_differentiable(*output[len(variable) :])
        ctx.set_materialize_grads(False)
        saved = (*inputs[1 : 1 + call.num_args], *variable, status, output[-1])
        ctx.save_for_backward(*saved)
        ctx.save_for_forward(*saved)

    @staticmethod
    @uncompiled
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Differentiable in its turn: double backward is right too."""
        of_variable = cotangents[: -_NUM_NUMBERS - 1]
        gradients = ctx.call.gradients(list(ctx.saved_tensors), of_variable, ctx.needed)
        return (None, *gradients, *(None,) * ctx.num_hints)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """The transpose of the backward, which is linear in the cotangent."""
        call: _Call = ctx.call
        if call.adjoint.max_gain is not None:
            raise NotImplementedError(
                "adjoint: pg.Implicit(max_gain=...) bounds the gradient of a loss; forward-mode differentiation (jvp, "
                "jacfwd, hessian) has none to bound. Use max_gain=None, or reverse mode (vjp, jacrev)"
            )
        of_args = tangents[1 : 1 + call.num_args]
        needed = [tangent is not None for tangent in of_args]
        if not any(needed):
            variable = ctx.saved_tensors[call.num_args : -2]
            return (*(torch.zeros_like(value) for value in variable), None, *(None,) * _NUM_NUMBERS)
        # torch turns forward mode off here, for outer levels too: their tangents would be lost without a word. The
        # saved tensors carry the tangents of this level, which must not be counted twice.
        with forward_ad._set_fwd_grad_enabled(True):
            saved = [forward_ad.unpack_dual(value).primal for value in ctx.saved_tensors]
            variable = saved[call.num_args : -2]

            def pulled(*cotangents: Tensor) -> tuple[Tensor, ...]:
                gradients = call.gradients(saved, cotangents, needed)
                return tuple(gradient for gradient in gradients if gradient is not None)

            push = torch.func.vjp(pulled, *(torch.zeros_like(value) for value in variable))[1]
            pushed = push(tuple(tangent for tangent in of_args if tangent is not None))
        return (*pushed, None, *(None,) * _NUM_NUMBERS)

    @staticmethod
    def vmap(  # pyright: ignore[reportIncompatibleMethodOverride]
        info: Any, in_dims: tuple[int | None, ...], call: _Call, *leaves: Tensor
    ) -> tuple[Any, Any]:
        """Fold the mapped dimension into the batch; what all items of both share stays shared."""
        count, mapped = info.batch_size, [dim is not None for dim in in_dims[1:]]
        moved = [
            leaf if dim is None else leaf.movedim(dim, 0)
            for dim, leaf in zip(in_dims[1:], leaves, strict=True)
        ]
        (size,) = torch.broadcast_shapes(
            *((leaf.shape[many],) for many, leaf in zip(mapped, moved, strict=True))
        )

        def fold(leaf: Tensor, many: bool) -> Tensor:
            if not many and leaf.shape[0] == 1:
                return leaf
            rest = leaf.shape[1 + many :]
            leaf = leaf if many else leaf[None]
            return leaf.expand(count, size, *rest).flatten(0, 1)

        outputs = _Minimiser.apply(
            call, *(fold(leaf, many) for many, leaf in zip(mapped, moved, strict=True))
        )
        return tuple(output.unflatten(0, (count, size)) for output in outputs), (0,) * len(outputs)
