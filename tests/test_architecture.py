"""Imports point downwards only, and the core imports no extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent / "src" / "posegrad"

# What each part may import, besides itself: everything above it in this list, unless it says otherwise.
_LAYERS = [
    "_pytree", "ragged", "robust", "so3", "pose", "manifolds", "cameras", "projection", "optim", "generic", "minimal",
    "kernels", "problems", "testing", "compat", "nn", "data", "viz", "train", "calibration", "authoring", "experiments",
    "cli", "__main__",
]  # fmt: skip
_KNOWS_NO_GEOMETRY = {"optim": {"_pytree"}}
_KNOWS_NO_NETWORKS = {"data": set(_LAYERS[: _LAYERS.index("nn")])}
_EXTRAS = {
    "accelerate", "cv2", "embreex", "matplotlib", "PIL", "safetensors", "scipy", "tensorboard", "timm",
    "torchvision", "tqdm", "trimesh", "tyro",
}  # fmt: skip


def _files() -> list[Path]:
    return sorted(_ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(_ROOT).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Parts of the package that a file imports anywhere, under a type-checking guard too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "posegrad" else [module]
        found |= {name.split(".")[1] for name in names if name.startswith("posegrad.")}
    return found


@pytest.mark.parametrize("path", [p for p in _files() if p != _ROOT / "__init__.py"], ids=str)
def test_imports_point_downwards(path: Path) -> None:
    part = _part(path)
    below = set(_LAYERS[: _LAYERS.index(part)])
    allowed = _KNOWS_NO_GEOMETRY.get(part, _KNOWS_NO_NETWORKS.get(part, below))
    assert _imports(path) <= allowed | {part}


def test_every_part_has_a_layer() -> None:
    assert {_part(p) for p in _files()} - {"__init__"} == set(_LAYERS)


def test_the_core_imports_no_extra() -> None:
    """In a process where the extras cannot be imported, solve_pnp and the drop-in work."""
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {_EXTRAS!r}:
            raise ImportError(f"{{name}} is an extra")
sys.meta_path.insert(0, Block())
import torch, posegrad as pg
assert not {{"numba", "posegrad.nn", "posegrad.data"}} & set(sys.modules), "imported before it is needed"
from posegrad.testing import random_scene
scene = random_scene(2, 6)
assert pg.solve_pnp(scene.points2d, scene.points3d, scene.K).ok.all()
assert pg.compat.BPnP_m3d.apply(scene.points2d, scene.points3d, scene.K).shape == (2, 6)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_import_leaves_no_trace() -> None:
    """Neither the global generator, nor grad mode, nor the default dtype."""
    code = """
import torch
torch.manual_seed(3)
before = torch.get_rng_state()
import posegrad as pg
from posegrad.testing import random_scene
scene = random_scene(2, 6)
pg.solve_pnp(scene.points2d, scene.points3d, scene.K)
assert torch.equal(before, torch.get_rng_state())
assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_stay_small() -> None:
    long = {p.name: n for p in _files() if (n := len(p.read_text().splitlines())) > 320}
    assert not long, f"is each still one concern? {long}"


def test_no_public_function_lacks_a_docstring() -> None:
    missing = []
    for path in _files():
        for node in ast.parse(path.read_text()).body:
            if (
                isinstance(node, ast.FunctionDef | ast.ClassDef)
                and not node.name.startswith("_")
                and not ast.get_docstring(node)
            ):
                missing.append(f"{path.name}:{node.name}")
    assert not missing
