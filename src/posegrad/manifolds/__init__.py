"""Where a variable lives: how it moves along its tangent.

A manifold acts on a batch: tensors (B, ...) of which every item is one point of it, or several (rotations (B, N, 3, 3)
are N rotations an item). Moves ``retract(x, delta)`` are twice differentiable at ``delta = 0``, and agree there with
the exponential map up to second order: implicit differentiation needs as much.

| manifold | variable | tangent |
|---|---|---|
| :class:`Euclidean` | (B, ...) | the numbers themselves |
| :class:`SO3` | (B, ..., 3, 3) | ``R <- exp(w) R``, w (..., 3) in radians |
| :class:`SE3` | :class:`posegrad.Pose` | ``R <- exp(w) R, t <- t + dt``, [w, dt] |
| :class:`Sphere` | (B, ..., n) of length 1 | n - 1 directions at right angles to x |
| :class:`Positive` | (B, ...), > 0 | logarithms: ``x <- x exp(delta)`` |
"""

from posegrad.manifolds.base import Manifold as Manifold
from posegrad.manifolds.product import Inferred as Inferred
from posegrad.manifolds.product import Product as Product
from posegrad.manifolds.product import manifold_of as manifold_of
from posegrad.manifolds.rotations import SE3 as SE3
from posegrad.manifolds.rotations import SO3 as SO3
from posegrad.manifolds.vectors import Euclidean as Euclidean
from posegrad.manifolds.vectors import Positive as Positive
from posegrad.manifolds.vectors import Sphere as Sphere
