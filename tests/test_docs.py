"""Examples in docstrings, README and docs are run."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import posegrad

_REPO = Path(__file__).parent.parent
_PAGES = [_REPO / "README.md", *sorted((_REPO / "docs").glob("*.md"))]


def _modules() -> list[str]:
    return ["posegrad", *(m.name for m in pkgutil.walk_packages(posegrad.__path__, "posegrad."))]


@pytest.mark.parametrize("name", _modules())
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch, "posegrad": posegrad, "pg": posegrad})
    assert result.failed == 0


# Modules whose names are the public ones: of a package what it re-exports, else what is defined there.
_PUBLIC = [
    *(
        "posegrad",
        "posegrad.cameras",
        "posegrad.robust",
        "posegrad.so3",
        "posegrad.minimal",
        "posegrad.testing",
    ),
    *("posegrad.compat", "posegrad.nn", "posegrad.data"),
    *(f"posegrad.minimal.{name}" for name in ("p3p", "sqpnp", "ippe", "dlt", "homography")),
]


@pytest.mark.parametrize("name", _PUBLIC)
def test_every_public_name_has_an_example(name: str) -> None:
    module = importlib.import_module(name)
    reexports = hasattr(module, "__path__")
    lacking = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.startswith("posegrad" if reexports else name)
        and ">>> " not in (value.__doc__ or "")
    ]
    assert not lacking


@pytest.mark.parametrize("page", _PAGES, ids=lambda p: p.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a page run one after the other in one namespace."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL), 1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", _PAGES, ids=lambda p: p.name)
def test_links_and_make_targets_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    makefile = (_REPO / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"make {target}"
