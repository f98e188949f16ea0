"""Shape vocabulary of the package (jaxtyping): B batch, N points, P camera parameters, D tangent dimension."""

from typing import TypeAlias

from jaxtyping import Bool, Float, Int
from torch import Tensor

Points2d: TypeAlias = Float[Tensor, "*batch N 2"]
Points3d: TypeAlias = Float[Tensor, "*batch N 3"]
Rotation: TypeAlias = Float[Tensor, "*batch 3 3"]
Vector3: TypeAlias = Float[Tensor, "*batch 3"]
Mask: TypeAlias = Bool[Tensor, "*batch"]
Index: TypeAlias = Int[Tensor, "*batch"]

__all__ = ["Bool", "Float", "Index", "Int", "Mask", "Points2d", "Points3d", "Rotation", "Tensor", "Vector3"]
