"""Robust losses: what a squared residual costs once it is too large to be noise.

A loss stands in ``cost = 1/2 sum_i rho(s_i)`` for the squared residual ``s = r^T W r >= 0``. All have one form,

    rho(s; c) = c^2 rho(s / c^2),   rho(s) = s + O(s^2),

so that the scale c, in units of sqrt(s), says where a residual stops counting in full, and every loss agrees with
least squares far below it. Its derivative ``rho'(s)`` is the weight that iteratively reweighted least squares would
give the residual; the Hessian of the cost needs ``rho''(s)`` too (Triggs et al., "Bundle Adjustment - A Modern
Synthesis", section 4.3, 1999).

Each formula is a function of ``u = s / c^2`` alone, called ``unit`` (or ``inlier`` and ``outlier``, where it is
piecewise), that returns value, first and second derivative.
"""

from posegrad.robust.barron import Barron as Barron
from posegrad.robust.base import Rho as Rho
from posegrad.robust.base import RobustLoss as RobustLoss
from posegrad.robust.base import Scaled as Scaled
from posegrad.robust.classical import Cauchy as Cauchy
from posegrad.robust.classical import GemanMcClure as GemanMcClure
from posegrad.robust.classical import Huber as Huber
from posegrad.robust.classical import SoftL1 as SoftL1
from posegrad.robust.classical import Squared as Squared
from posegrad.robust.classical import Truncated as Truncated
from posegrad.robust.classical import Tukey as Tukey

#: Losses by name.
LOSSES: dict[str, type[RobustLoss]] = {
    loss.name: loss for loss in (Squared, Huber, SoftL1, Cauchy, GemanMcClure, Tukey, Truncated, Barron)
}
