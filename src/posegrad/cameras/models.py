"""The distorted models, one short class each. Names, parameter order and formulas are COLMAP's.

With ``(a, b) = (x / z, y / z)``, or for fisheyes ``(a, b) = (x, y) theta / rho`` where ``rho^2 = x^2 + y^2`` and
``theta = atan2(rho, z)``, and with ``s = a^2 + b^2``, the pixel is

    u = fx a g(s) + cx,   v = fy b g(s) + cy

plus, for OPENCV and FULL_OPENCV, ``fx (2 p1 a b + p2 (s + 2 a^2))`` and ``fy (2 p2 a b + p1 (s + 2 b^2))``. Focal
lengths and centre are in pixels, the other parameters without unit. Differences to COLMAP: pixel centres (see
:func:`posegrad.cameras.from_colmap`); fisheye points beyond 90 degrees are valid; near the axis and for small omega
FOV is exact where COLMAP truncates a series.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor

from posegrad.cameras import lenses, profiles
from posegrad.cameras.base import Camera
from posegrad.cameras.distorted import Distorted, Equidistant, Perspective
from posegrad.cameras.lenses import Rays
from posegrad.cameras.pinhole import Pinhole, SimplePinhole, SkewPinhole


class SimpleRadial(Perspective):
    """``g = 1 + k s``; params (..., 4) = (f, cx, cy, k) (COLMAP ``SIMPLE_RADIAL``).

    >>> camera = SimpleRadial(torch.tensor([500.0, 320.0, 240.0, -0.1]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 1.0]])).points2d
    tensor([[770., 240.]])
    """

    name: ClassVar[str] = "SIMPLE_RADIAL"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy", "k")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.linear)


class Radial(Perspective):
    """``g = 1 + k1 s + k2 s^2``; params (..., 5) = (f, cx, cy, k1, k2) (COLMAP ``RADIAL``).

    >>> camera = Radial(torch.tensor([500.0, 320.0, 240.0, -0.1, 0.02]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 1.0]])).points2d
    tensor([[780., 240.]])
    """

    name: ClassVar[str] = "RADIAL"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy", "k1", "k2")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.quadratic)


class OpenCV(Perspective):
    """``g = 1 + k1 s + k2 s^2`` and tangential terms; params (..., 8) = (fx, fy, cx, cy, k1, k2, p1, p2).

    COLMAP ``OPENCV``; OpenCV's four coefficients (k1, k2, p1, p2).

    >>> camera = OpenCV(torch.tensor([500.0, 500.0, 320.0, 240.0, -0.1, 0.02, 0.001, 0.002]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 1.0]])).points2d
    tensor([[783.0000, 240.5000]])
    """

    name: ClassVar[str] = "OPENCV"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.quadratic)


class FullOpenCV(Perspective):
    """``g = (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3)`` and tangential terms.

    Params (..., 12) = (fx, fy, cx, cy, k1, k2, p1, p2, k3, k4, k5, k6). COLMAP ``FULL_OPENCV``; OpenCV's five or eight
    coefficients, in their order.

    >>> camera = FullOpenCV(torch.tensor([500.0, 500, 320, 240, 0.2, 0, 0, 0, 0, 0.5, 0, 0]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 1.0]])).points2d  # g = 1.2 / 1.5
    tensor([[720., 240.]])
    """

    name: ClassVar[str] = "FULL_OPENCV"
    parameter_names: ClassVar[tuple[str, ...]] = (
        *("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    )
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.rational)
    denominator: ClassVar[Callable[..., Any] | None] = staticmethod(profiles.rational_denominator)


class FOV(Perspective):
    """``g = atan(2 r tan(omega / 2)) / (r omega)``, ``r^2 = s``; params (..., 5) = (fx, fy, cx, cy, omega).

    COLMAP ``FOV``; omega in radians, between -pi and pi (the sign has no effect, 0 is no distortion).

    Reference: Devernay & Faugeras, "Straight lines have to be straight", Machine Vision and Applications 13 (2001).

    >>> camera = FOV(torch.tensor([500.0, 500.0, 320.0, 240.0, torch.pi / 2]))
    >>> camera.project(torch.tensor([[0.5, 0.0, 1.0]])).points2d  # g = (pi / 4) / (pi / 4)
    tensor([[570., 240.]])
    """

    name: ClassVar[str] = "FOV"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy", "omega")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.field_of_view)


class SimpleFisheye(Equidistant):
    """``g = 1``, equidistant; params (..., 3) = (f, cx, cy) (COLMAP ``SIMPLE_FISHEYE``).

    >>> camera = SimpleFisheye(torch.tensor([200.0, 320.0, 240.0]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]])).points2d  # 90 degrees from the axis
    tensor([[634.1593, 240.0000]])
    """

    name: ClassVar[str] = "SIMPLE_FISHEYE"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy")


class Fisheye(Equidistant):
    """``g = 1``, equidistant; params (..., 4) = (fx, fy, cx, cy) (COLMAP ``FISHEYE``).

    >>> camera = Fisheye(torch.tensor([200.0, 210.0, 320.0, 240.0]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]])).points2d  # 90 degrees from the axis
    tensor([[634.1593, 240.0000]])
    """

    name: ClassVar[str] = "FISHEYE"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy")


class SimpleRadialFisheye(Equidistant):
    """``g = 1 + k theta^2``; params (..., 4) = (f, cx, cy, k) (COLMAP ``SIMPLE_RADIAL_FISHEYE``).

    >>> camera = SimpleRadialFisheye(torch.tensor([200.0, 320.0, 240.0, 0.1]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]])).points2d  # 90 degrees from the axis
    tensor([[711.6749, 240.0000]])
    """

    name: ClassVar[str] = "SIMPLE_RADIAL_FISHEYE"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy", "k")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.linear)


class RadialFisheye(Equidistant):
    """``g = 1 + k1 theta^2 + k2 theta^4``; params (..., 5) = (f, cx, cy, k1, k2) (COLMAP ``RADIAL_FISHEYE``).

    >>> camera = RadialFisheye(torch.tensor([200.0, 320.0, 240.0, 0.1, -0.02]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 0.0]])).points2d  # 90 degrees from the axis
    tensor([[673.4225, 240.0000]])
    """

    name: ClassVar[str] = "RADIAL_FISHEYE"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy", "k1", "k2")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.quadratic)


class OpenCVFisheye(Equidistant):
    """``g = 1 + k1 theta^2 + k2 theta^4 + k3 theta^6 + k4 theta^8``.

    Params (..., 8) = (fx, fy, cx, cy, k1, k2, k3, k4). COLMAP ``OPENCV_FISHEYE``, OpenCV's ``fisheye`` without its
    skew: the model of Kannala and Brandt.

    Reference: Kannala & Brandt, "A generic camera model ...", PAMI 28 (2006).

    >>> camera = OpenCVFisheye(torch.tensor([200.0, 200.0, 320.0, 240.0, 0.0, 0.0, 0.0, 0.0]))
    >>> camera.project(torch.tensor([[1.0, 0.0, -1.0]])).points2d  # 135 degrees from the axis
    tensor([[791.2389, 240.0000]])
    """

    name: ClassVar[str] = "OPENCV_FISHEYE"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy", "k1", "k2", "k3", "k4")
    profile: ClassVar[profiles.Profile] = staticmethod(profiles.quartic)


class Division(Distorted):
    """The image (a, b) of the ray ``(a, b, 1 + k (a^2 + b^2))``; params (..., 5) = (fx, fy, cx, cy, k).

    ``(a, b) = 2 (x, y) / (z + sqrt(z^2 - 4 k rho^2))`` (COLMAP ``DIVISION``). Barrel distortion is k < 0, where the
    field reaches beyond 90 degrees; for k > 0 it is ``z > 0``, ``z^2 > 4 k rho^2``. In both ``a^2 + b^2 < 1e8``.

    Reference: Fitzgibbon, "Simultaneous linear estimation of multiple view geometry and lens distortion", CVPR 2001.

    >>> camera = Division(torch.tensor([500.0, 500.0, 320.0, 240.0, -0.25]))
    >>> ray = torch.tensor([[1.0, 0.0, 1 - 0.25]])  # of the image (a, b) = (1, 0)
    >>> camera.project(ray).points2d
    tensor([[820., 240.]])
    """

    name: ClassVar[str] = "DIVISION"
    parameter_names: ClassVar[tuple[str, ...]] = ("fx", "fy", "cx", "cy", "k")
    wide: ClassVar[bool] = True
    lens_parameters: ClassVar[tuple[str, ...]] = ("k",)

    def _lens(self, points_cam: Tensor, order: int) -> Rays:
        return lenses.division(points_cam, self.params[..., -1:], order)

    def _direction(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return lenses.division_direction(a, b, self.params[..., -1:])

    def _covers(self, a: Tensor, b: Tensor) -> Tensor:
        return self.params[..., -1:] * (a * a + b * b) < 1


class SimpleDivision(Division):
    """As :class:`Division` with one focal length; params (..., 4) = (f, cx, cy, k) (COLMAP ``SIMPLE_DIVISION``).

    >>> camera = SimpleDivision(torch.tensor([500.0, 320.0, 240.0, -0.25]))
    >>> camera.project(torch.tensor([[1.0, 0.0, 1 - 0.25]])).points2d
    tensor([[820., 240.]])
    """

    name: ClassVar[str] = "SIMPLE_DIVISION"
    parameter_names: ClassVar[tuple[str, ...]] = ("f", "cx", "cy", "k")


#: Camera models by name.
MODELS: dict[str, type[Camera]] = {
    model.name: model
    for model in (
        *(SimplePinhole, Pinhole, SkewPinhole, SimpleRadial, Radial, OpenCV, FullOpenCV, FOV),
        *(
            SimpleFisheye,
            Fisheye,
            SimpleRadialFisheye,
            RadialFisheye,
            OpenCVFisheye,
            SimpleDivision,
            Division,
        ),
    )
}
