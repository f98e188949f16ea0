"""Second derivatives, float32 and inexact adjoints of solve_pnp: every camera, every loss, every kind of weights."""

import dataclasses

import pytest
import torch
from torch import Tensor

import posegrad as pg
from posegrad.testing import central_difference, random_scene, relative_error

from .test_pnp_costs import _PAIRWISE, CAMERAS, LOSSES, _as_matrices, _readout, _weights

# Every camera once, with the losses and kinds in turn.
_COVERING = [case for i, case in enumerate(_PAIRWISE) if i % len(LOSSES) == i // len(LOSSES) % len(LOSSES)]


@dataclasses.dataclass(frozen=True)
class _Case:
    """A problem of one camera, loss and kind of weights as named tensors (B, ...), and how to solve it."""

    camera: type[pg.cameras.Camera]
    loss: type[pg.robust.RobustLoss]
    inputs: dict[str, Tensor]
    pose: pg.Pose

    @classmethod
    def of(cls, camera: str, loss: str, kind: str, *, batch: int, points: int, seed: int) -> "_Case":
        model, rho = pg.cameras.MODELS[camera], LOSSES[loss]
        scene = random_scene(batch, points, seed=seed)
        params = torch.tensor(CAMERAS[camera], dtype=torch.float64).expand(batch, -1)
        noise = torch.randn(batch, points, 2, generator=torch.Generator().manual_seed(seed)).double()
        inputs = {
            "points2d": pg.project_points(scene.points3d, model(params), scene.pose) + 2.0 * noise,
            "points3d": scene.points3d,
            "weights": _weights(kind, batch, points),
            "params": params.clone(),
        }
        inputs |= {f.name: getattr(rho, f.name).expand(batch).clone() for f in dataclasses.fields(rho)}
        return cls(model, type(rho), inputs, scene.pose)

    def solve(self, values: dict[str, Tensor], adjoint: pg.Implicit = pg.Implicit()) -> pg.PnPSolution:  # noqa: B008
        loss = self.loss(**{f.name: values[f.name] for f in dataclasses.fields(self.loss)})
        init = self.pose.to(values["points2d"].dtype)
        solution = pg.solve_pnp(
            values["points2d"], values["points3d"], self.camera(values["params"]),
            weights=values["weights"], loss=loss, init=init, adjoint=adjoint,
        )  # fmt: skip
        assert bool(solution.ok.all()), solution.describe()
        return solution

    def gradients(self, adjoint: pg.Implicit) -> tuple[dict[str, Tensor], pg.PnPSolution]:
        leaves = {name: value.clone().requires_grad_() for name, value in self.inputs.items()}
        solution = self.solve(leaves, adjoint)
        found = torch.autograd.grad(_readout(solution).sum(), list(leaves.values()), materialize_grads=True)
        return dict(zip(leaves, found, strict=True)), solution

    def cost(self, item: int, values: dict[str, Tensor], pose: pg.Pose) -> Tensor:
        """The definition, for one item."""
        r = pg.reprojection_residuals(
            values["points2d"], values["points3d"], self.camera(values["params"]), pose
        )
        s = (r[:, None] @ _as_matrices(values["weights"][None])[0] @ r[..., None]).flatten()
        loss = self.loss(**{f.name: values[f.name] for f in dataclasses.fields(self.loss)})
        return 0.5 * loss.evaluate(s).value.sum()


@pytest.mark.parametrize(("camera", "loss", "kind"), _COVERING)
def test_second_derivatives_equal_differences_of_first_ones(camera: str, loss: str, kind: str) -> None:
    """Along a random direction, by everything at once, each in a unit in which it moves the image by a pixel or so."""
    batch = 3
    case = _Case.of(camera, loss, kind, batch=batch, points=6, seed=4)
    pixel = torch.arange(case.inputs["params"].shape[1]) < case.camera.num_pixel_params
    units = {"points3d": 1e-2, "weights": 0.1, "params": torch.where(pixel, 1.0, 1e-2).double()}
    sizes = [value[0].numel() for value in case.inputs.values()]
    flat = torch.cat([(v / units.get(n, 1.0)).reshape(batch, -1) for n, v in case.inputs.items()], 1)
    direction = torch.randn(flat.shape, generator=torch.Generator().manual_seed(0)).double()

    def along(x: Tensor) -> Tensor:
        copies = len(x) // batch
        parts = zip(case.inputs.items(), x.split(sizes, 1), strict=True)
        values = {n: part.view(len(x), *v.shape[1:]) * units.get(n, 1.0) for (n, v), part in parts}
        start = pg.Pose(*(leaf.repeat_interleave(copies, 0) for leaf in (case.pose.R, case.pose.t)))
        readout = _readout(dataclasses.replace(case, pose=start).solve(values))
        (gradient,) = torch.autograd.grad(readout.sum(), x, create_graph=True)
        return (gradient * direction.repeat_interleave(copies, 0)).sum(1)

    leaf = flat.clone().requires_grad_()
    (actual,) = torch.autograd.grad(along(leaf).sum(), leaf)
    expected = central_difference(lambda x: along(x.requires_grad_()).detach(), flat, 1e-2)
    error = relative_error(actual, expected, floor=1e-9)
    assert error.max() < 1e-6, f"{error.max():.1e}"


@pytest.mark.parametrize(("camera", "loss", "kind"), _COVERING)
def test_float32_gradients_are_those_of_float64_on_the_same_inputs(camera: str, loss: str, kind: str) -> None:
    case = _Case.of(camera, loss, kind, batch=10, points=8, seed=5)
    narrow = {name: value.float() for name, value in case.inputs.items()}
    found = []
    for dtype in (torch.float32, torch.float64):
        wide = dataclasses.replace(case, inputs={n: v.to(dtype) for n, v in narrow.items()})
        gradients, solution = wide.gradients(pg.Implicit())
        assert solution.pose.R.dtype == dtype
        found.append(gradients)
    for name, low in found[0].items():
        assert low.dtype == torch.float32
        if low.numel():
            assert relative_error(low.double(), found[1][name], 1e-6).max() < 1e-3, name


@pytest.mark.parametrize(("camera", "loss", "kind"), _COVERING)
def test_gauss_newton_and_the_bound_on_the_gain_are_what_they_say(camera: str, loss: str, kind: str) -> None:
    """``-d<u, g>/dargs`` with u from ``sum J^T rho' W J``, or shortened; all by automatic differentiation."""
    case = _Case.of(camera, loss, kind, batch=3, points=8, seed=6)
    exact, solution = case.gradients(pg.Implicit())
    gauss_newton, _ = case.gradients(pg.Implicit(hessian="gauss_newton"))
    base, gains, expected = solution.pose.detach(), [], []
    zero = torch.zeros(6, dtype=torch.float64)
    for i in range(3):
        values, pose = {name: value[i] for name, value in case.inputs.items()}, base[i]

        def readout(delta: Tensor, pose: pg.Pose = pose) -> Tensor:
            return _readout(pg.PnPSolution(pose.retract(delta), *(torch.zeros(()),) * 5))

        def residual(delta: Tensor, pose: pg.Pose = pose, values: dict[str, Tensor] = values) -> Tensor:
            model = case.camera(values["params"])
            return pg.reprojection_residuals(
                values["points2d"], values["points3d"], model, pose.retract(delta)
            )

        def gradient(delta: Tensor, values: dict[str, Tensor], pose: pg.Pose = pose, i: int = i) -> Tensor:
            return torch.func.grad(lambda d: case.cost(i, values, pose.retract(d)))(delta)

        v, J, r = torch.func.grad(readout)(zero), torch.func.jacrev(residual)(zero), residual(zero)
        W = _as_matrices(values["weights"][None])[0]
        rho = case.loss(**{f.name: values[f.name] for f in dataclasses.fields(case.loss)})
        first = rho.evaluate((r[:, None] @ W @ r[..., None]).flatten()).first
        A = torch.einsum("nai,n,nab,nbj->ij", J, first, W, J)
        H = torch.func.jacrev(gradient)(zero, values)
        by_A, by_H = torch.linalg.solve(A, v), torch.linalg.solve(H, v)
        slope = torch.func.grad(lambda values, u: -(u @ gradient(zero, values)))
        expected.append(slope(values, by_A))
        gains.append(((by_H @ A @ by_H) / (v @ by_A)).sqrt())
        for name, wanted in slope(values, by_H).items():
            torch.testing.assert_close(exact[name][i], wanted, rtol=1e-6, atol=1e-9, msg=name)
    for name, actual in gauss_newton.items():
        wanted = torch.stack([e[name] for e in expected])
        torch.testing.assert_close(actual, wanted, rtol=1e-7, atol=1e-10, msg=name)
    gain = torch.stack(gains)
    bound = gain.sort().values[:2].mean().item()  # two of the three are above it
    bounded, _ = case.gradients(pg.Implicit(max_gain=bound))
    shortened = (bound / gain).clamp(max=1)
    assert int((shortened < 1).sum()) == 2
    for name, actual in bounded.items():
        factor = shortened.view(-1, *(1,) * (actual.ndim - 1))
        torch.testing.assert_close(actual, factor * exact[name], rtol=1e-8, atol=1e-12, msg=name)


def test_every_camera_loss_and_kind_is_covered() -> None:
    cameras, losses, kinds = (set(column) for column in zip(*_COVERING, strict=True))
    assert (cameras, losses, len(kinds)) == (set(CAMERAS), set(LOSSES), 3)
