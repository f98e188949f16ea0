"""A Gaussian prior on a pose: what is known of it before the image is looked at.

``f(R, t) = 1/2 xi^T L xi`` with ``xi = [log(R R0^T), t - t0]``, mean (R0, t0) and information matrix L (the inverse
covariance) in the tangent of :class:`Pose`. Solved together with the reprojections, as one :class:`Sum`.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posegrad import _pytree, so3
from posegrad.optim.linear import equilibrate, inverse_positive
from posegrad.pose import Pose
from posegrad.problems.prior_problem import PriorTerm


@_pytree.register
@dataclass(frozen=True, eq=False)
class PosePrior:
    """Gaussian prior on a pose: ``cost += 1/2 xi^T L xi``, ``xi = [log(R R0^T), t - t0]``.

    ``log(R R0^T)`` is the rotation from the mean to the pose, in camera axes, as in the tangent of :class:`Pose`.

    The information is in the unit of the rest of the cost: next to reprojections it is the inverse covariance if the
    weights of the points are inverse variances (``weights = 1 / sigma_px**2``). Directions in which it is zero are left
    to the data.

    Args:
        pose: mean (...); gradients reach it.
        information: L (..., 6, 6), symmetric and positive semidefinite, order [rotation (1 / rad^2), translation];
            gradients reach it. An item whose L is not so, or whose mean is no pose, gets a status, see :meth:`invalid`.

    Degeneracies: the rotation's term is not differentiable where R is half a turn from the mean, where log has two
    values. It is finite and largest there; a start should be nearer.

    >>> sigma = torch.tensor([1.0, 1.0, torch.inf])
    >>> prior = PosePrior.from_sigmas(Pose.identity(), rotation_rad=0.1, translation=sigma)
    >>> prior.information.diagonal()
    tensor([100., 100., 100.,   1.,   1.,   0.])
    """

    pose: Pose
    information: Float[Tensor, "*batch 6 6"]

    def __post_init__(self) -> None:
        if not isinstance(self.pose, Pose):
            raise TypeError(
                f"PosePrior.pose: got {type(self.pose).__name__}, expected a pg.Pose; see pg.Pose.from_rotvec"
            )
        _check("PosePrior.information", self.information, (6, 6))
        for name, value in (("R", self.pose.R), ("t", self.pose.t)):
            if not value.is_floating_point():
                raise TypeError(
                    f"PosePrior.pose.{name}: got dtype {value.dtype}, expected a floating-point dtype"
                )
            if value.device != self.information.device:
                raise ValueError(
                    f"PosePrior.information: is on {self.information.device}, expected {value.device} as pose.{name}"
                )
        try:
            torch.broadcast_shapes(self.pose.shape, self.information.shape[:-2])
        except RuntimeError:
            raise ValueError(
                f"PosePrior: batch dimensions of pose {tuple(self.pose.shape)} and information "
                f"{tuple(self.information.shape)} do not broadcast against each other"
            ) from None

    @classmethod
    def from_covariance(cls, pose: Pose, covariance: Float[Tensor, "*batch 6 6"]) -> Self:
        """From a covariance (..., 6, 6) in the tangent [rotation (rad), translation], such as an earlier answer's.

        The information comes in float64 where the device has it. A covariance that is not positive definite makes an
        invalid item. For a direction of which nothing is known give the information instead.
        """
        _check("covariance", covariance, (6, 6))
        wide = covariance.to(torch.float32 if covariance.device.type == "mps" else torch.float64)
        information, positive = inverse_positive(wide)
        return cls(pose, torch.where(positive[..., None, None], information, torch.nan))

    @classmethod
    def from_sigmas(
        cls,
        pose: Pose,
        rotation_rad: float | Float[Tensor, "*batch axes"],
        translation: float | Float[Tensor, "*batch axes"],
    ) -> Self:
        """From independent standard deviations about and along the camera's axes.

        Args:
            pose: the mean.
            rotation_rad: > 0 in radians: a number, (..., 1) for all axes, or (..., 3). ``inf``: nothing is known.
            translation: > 0 in the unit of the points, likewise.
        """
        inverse = [
            _sigmas(name, value, pose).reciprocal()  # before squaring: the gradient at infinity is zero then
            for name, value in (("rotation_rad", rotation_rad), ("translation", translation))
        ]
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in inverse))
        both = torch.cat([value.expand(*batch, 3) for value in inverse], -1)
        return cls(pose, torch.diag_embed(both.square()))

    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return torch.broadcast_shapes(self.pose.shape, self.information.shape[:-2])

    def invalid(self) -> Bool[Tensor, "*batch"]:
        """(...) True where the information is not finite, symmetric and positive semidefinite up to rounding, or the
        mean is not finite or no rotation (not orthonormal to 0.1, or a reflection)."""
        with torch.no_grad():
            L, (R, t) = self.information, (self.pose.R, self.pose.t)
            finite = L.isfinite().all(-1).all(-1)
            L = torch.where(finite[..., None, None], L, 0.0)
            eps = torch.finfo(L.dtype).eps
            scaled, _ = equilibrate(L)
            symmetric = (scaled - scaled.mT).abs().amax((-1, -2)) <= eps**0.5
            # with unit diagonal no entry is larger in size; and of large ones the eigenvalues might not converge
            bounded = scaled.abs().amax((-1, -2)) <= 1 + eps**0.5
            scaled = torch.where(bounded[..., None, None], scaled, 0.0)
            smallest = torch.linalg.eigvalsh((scaled + scaled.mT) / 2)[..., 0]
            good_mean = so3.is_rotation(R) & t.isfinite().all(-1)
            return ~(finite & symmetric & bounded & (smallest >= -64 * eps) & good_mean)

    def keep(self, good: Bool[Tensor, "*batch"]) -> Self:
        """The same where ``good``; elsewhere no information, with the identity as its mean."""
        R, t = self.pose.R, self.pose.t
        eye = torch.eye(3, dtype=R.dtype, device=R.device)
        pose = Pose(torch.where(good[..., None, None], R, eye), torch.where(good[..., None], t, 0.0))
        return type(self)(pose, torch.where(good[..., None, None], self.information, 0.0))

    def term(
        self, centre: Float[Tensor, "B 3"], size: Float[Tensor, " B"], unit: Float[Tensor, " B"]
    ) -> PriorTerm:
        """The arguments of :class:`Prior` for poses in conditioned units; see :class:`PriorTerm`."""
        return PriorTerm(Pose(so3.normalise(self.pose.R), self.pose.t), self.information, centre, size, unit)


def _check(label: str, value: object, trailing: tuple[int, ...]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{label}: got {type(value).__name__}, expected a torch.Tensor")
    if not value.is_floating_point():
        raise TypeError(f"{label}: got dtype {value.dtype}, expected a floating-point dtype")
    if tuple(value.shape[-len(trailing) :]) != trailing:
        wanted = ", ".join(map(str, trailing))
        raise ValueError(f"{label}: got shape {tuple(value.shape)}, expected (..., {wanted})")


def _sigmas(name: str, value: object, like: Pose) -> Tensor:
    """Standard deviations (..., 1 or 3); those that are not positive become NaN, which makes the item invalid."""
    if isinstance(value, Real) and not isinstance(value, bool):
        if not float(value) > 0:
            raise ValueError(f"{name}: got {value!r}, expected a standard deviation > 0")
        return torch.full((1,), float(value), dtype=like.t.dtype, device=like.t.device)
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a torch.Tensor")
    if not value.is_floating_point():
        raise TypeError(f"{name}: got dtype {value.dtype}, expected a floating-point dtype")
    if value.ndim == 0 or value.shape[-1] not in (1, 3):
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected a number, (..., 1) or (..., 3)")
    return torch.where(value > 0, value, torch.nan)
