"""torch.compile of a model with solve_pnp in it: one break of the graph, the same values and gradients.

The compilers here are those that need no C++; ``inductor`` differs behind the break only.
"""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import posegrad as pg
from posegrad.testing import random_scene

# torch asks a tensor for its gradient behind a graph break, and hides its own warning about it
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


class _Network(nn.Module):
    """Corrects points, solves, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.correction = nn.Linear(16, 16).double()
        nn.init.constant_(self.correction.weight, 1e-4)
        self.pnp = pg.PnP()

    def forward(self, points2d: Tensor, points3d: Tensor, K: Tensor, weights: Tensor) -> Tensor:
        corrected = points2d + self.correction(points2d.flatten(1)).unflatten(-1, (8, 2))
        solution = self.pnp(corrected, points3d, K, weights=weights)
        residual = pg.reprojection_residuals(points2d, points3d, K, solution.pose)
        return pg.masked_mean(residual.square().sum((-1, -2)), solution.ok)


def _network() -> _Network:
    torch.manual_seed(0)
    return _Network()


def _inputs(batch: int = 5) -> tuple[Tensor, ...]:
    scene = random_scene(batch, 8, noise=2.0, seed=1)
    weights = scene.weights.clone()
    weights[2] = 0  # a failed item must stay one
    return scene.points2d, scene.points3d, scene.K, weights


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


def test_one_break_of_the_graph() -> None:
    report = torch._dynamo.explain(_network())(*_inputs())
    assert report.graph_count == 2
    assert report.graph_break_count == 1
    assert "eagerly" in report.break_reasons[0].reason


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_values_and_gradients(compiler: str) -> None:
    plain, compiled = _network(), _network()
    expected = plain(*_inputs())
    expected.backward()
    loss = torch.compile(compiled, backend=compiler)(*_inputs())
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for got, wanted in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert wanted.grad is not None
        assert wanted.grad.abs().max() > 1e-3
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-9, atol=1e-12)


def test_a_training_step_with_its_backward_inside() -> None:
    plain, compiled = _network(), _network()

    @torch.compile(backend="eager")
    def step(*inputs: Tensor) -> Tensor:
        loss = compiled(*inputs)
        loss.backward()
        return loss.detach()

    loss = plain(*_inputs())
    loss.backward()
    torch.testing.assert_close(step(*_inputs()), loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(compiled.correction.weight.grad, plain.correction.weight.grad)


def test_the_solver_is_left_alone() -> None:
    """No frame of the solver is compiled: of this package, those on the way to it."""
    torch._dynamo.utils.clear_compilation_metrics()
    network = torch.compile(_network(), backend="eager")
    for size in (5, 3, 4):
        network(*_inputs(size)).backward()
    compiled = {
        metrics.co_filename.rpartition("posegrad/")[2]
        for metrics in torch._dynamo.utils.get_compilation_metrics()
        if metrics.co_filename and "src/posegrad" in metrics.co_filename
    }
    assert compiled
    assert compiled <= {"problems/pnp.py", "optim/compiling.py"}


def test_argmin_layer() -> None:
    class Mean(pg.Problem):
        dimension = 1

        def residual(self, variable: Tensor, args: Tensor) -> Tensor:
            return variable - args

    layer = pg.argmin_layer(lambda args: torch.zeros(len(args), 1, dtype=args.dtype), Mean())

    def function(y: Tensor) -> Tensor:
        solution = layer(y * 2)
        return (solution.variable.sin() * y * solution.ok[:, None]).sum()

    y = torch.linspace(-1, 1, 12).double().view(4, 3).requires_grad_()
    compiled = torch.compile(function, backend="aot_eager")
    (expected,) = torch.autograd.grad(function(y), y)
    (actual,) = torch.autograd.grad(compiled(y), y)
    torch.testing.assert_close(actual, expected)
    assert torch._dynamo.explain(function)(y).graph_break_count == 1


def test_a_full_graph_is_refused_by_name() -> None:
    points2d, points3d, K, _ = _inputs()
    compiled = torch.compile(lambda x: pg.solve_pnp(x, points3d, K).pose.t, backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match=r"torch\.compiler\.disable"):
        compiled(points2d)


def test_the_compiler_is_not_imported_without_need() -> None:
    code = """
import sys, torch
assert "torch._dynamo" not in sys.modules
import posegrad as pg
from posegrad.testing import random_scene
scene = random_scene(2, 6)
assert pg.solve_pnp(scene.points2d.requires_grad_(), scene.points3d, scene.K).pose.t.requires_grad
assert "torch._dynamo" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
