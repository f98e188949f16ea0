"""Camera models: small frozen types that hold their parameters as a differentiable tensor.

Names and parameter order are COLMAP's. Pixel coordinates are OpenCV's: the centre of the top-left pixel is (0, 0)
(COLMAP puts it at (0.5, 0.5), see :func:`from_colmap`). Each model projects and unprojects points with validity and
exact derivatives for points and parameters, and goes wherever a ``camera`` is asked for.

Adding a model: most are a lens and a radial profile, and a subclass of :class:`Perspective` or :class:`Equidistant`
(a fisheye) with three lines is all they need; ``MODELS`` is the table the shared checks go through.

>>> class Cubic(Perspective):
...     name = "CUBIC"
...     parameter_names = ("f", "cx", "cy", "k")
...     profile = staticmethod(lambda s, k: (1 + k * s**3, 3 * k * s**2, 6 * k * s))  # g(r^2), g', g''
>>> from posegrad.testing import check_camera
>>> points = torch.tensor([[0.1, 0.2, 1.0], [-0.5, 0.3, 1.0]], dtype=torch.float64)
>>> check_camera(Cubic(torch.tensor([500.0, 320, 240, -0.2], dtype=torch.float64)), points)

A lens of its own is one function more (:mod:`posegrad.cameras.lenses`), anything else a subclass of :class:`Camera`.
"""

from posegrad.cameras.base import Camera as Camera
from posegrad.cameras.base import Projected as Projected
from posegrad.cameras.base import Unprojected as Unprojected
from posegrad.cameras.conversions import as_camera as as_camera
from posegrad.cameras.conversions import from_colmap as from_colmap
from posegrad.cameras.conversions import from_opencv as from_opencv
from posegrad.cameras.conversions import from_opencv_fisheye as from_opencv_fisheye
from posegrad.cameras.conversions import to_colmap as to_colmap
from posegrad.cameras.distorted import Distorted as Distorted
from posegrad.cameras.distorted import Equidistant as Equidistant
from posegrad.cameras.distorted import Perspective as Perspective
from posegrad.cameras.models import FOV as FOV
from posegrad.cameras.models import MODELS as MODELS
from posegrad.cameras.models import Division as Division
from posegrad.cameras.models import Fisheye as Fisheye
from posegrad.cameras.models import FullOpenCV as FullOpenCV
from posegrad.cameras.models import OpenCV as OpenCV
from posegrad.cameras.models import OpenCVFisheye as OpenCVFisheye
from posegrad.cameras.models import Radial as Radial
from posegrad.cameras.models import RadialFisheye as RadialFisheye
from posegrad.cameras.models import SimpleDivision as SimpleDivision
from posegrad.cameras.models import SimpleFisheye as SimpleFisheye
from posegrad.cameras.models import SimpleRadial as SimpleRadial
from posegrad.cameras.models import SimpleRadialFisheye as SimpleRadialFisheye
from posegrad.cameras.pinhole import Pinhole as Pinhole
from posegrad.cameras.pinhole import SimplePinhole as SimplePinhole
from posegrad.cameras.pinhole import SkewPinhole as SkewPinhole
