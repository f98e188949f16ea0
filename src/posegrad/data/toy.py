"""The embedded dataset: one procedural object, rendered once per machine, in BOP layout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from posegrad.data.bop_writer import BopWriter
from posegrad.data.errors import DatasetError
from posegrad.data.mesh import simplify_mesh
from posegrad.data.procedural import DIAMETER_MM, procedural_object
from posegrad.data.raycast import RayCaster
from posegrad.data.render import Frame, Target, render_frame
from posegrad.data.render_config import RenderConfig
from posegrad.data.splits import random_occluders, write_splits

RENDERER_VERSION = 2
"""Raised with every change that alters the pictures, so that old caches are not used."""
OBJECT_ID = 1


def render_dataset(
    root: str | Path, config: RenderConfig | None = None, *, workers: int | None = None, progress: bool = True
) -> None:
    """Renders `root/train`, `root/test` and the models in BOP layout; object 1, scene 1, images from 0.

    Args:
        root: a new or empty folder.
        config: what to render; the frames depend on it only, not on `workers`.
        workers: threads, default one per available core.
        progress: show a progress bar.

    >>> import tempfile
    >>> from posegrad.data import BopDataset
    >>> tiny = RenderConfig(2, 1, width=160, height=120, focal=280.0, samples=1, occluded_share=0.0)
    >>> with tempfile.TemporaryDirectory() as root:
    ...     render_dataset(root, tiny, workers=1, progress=False)
    ...     len(BopDataset(root, "train").instances(1))
    2
    """
    config, root = config or RenderConfig(), Path(root)
    mesh = procedural_object(config.object_seed)
    # its origin is the centre of its box, and all of it lies within 0.6 diameters of that
    target = Target(OBJECT_ID, RayCaster(mesh), DIAMETER_MM, config.distance, np.zeros(3), 0.6)
    occluders = random_occluders(config.object_seed) if config.occluded_share else []
    frames = config.frames

    def draw(rng: np.random.Generator) -> Frame:
        return render_frame([target], occluders, frames, rng)

    counts = {"train": config.train_frames, "test": config.test_frames}
    write_splits(
        root, counts, draw, config.K, seed=config.seed, image_format=config.image_format, workers=workers,
        progress=progress,
    )  # fmt: skip
    models = BopWriter(root, "train")
    models.add_model(OBJECT_ID, mesh, diameter=DIAMETER_MM)
    models.add_model(OBJECT_ID, simplify_mesh(mesh, 2.0), diameter=DIAMETER_MM, folder="models_eval")
    models.write_camera(config.K, config.width, config.height)
    (root / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")


def toy_dataset(
    cache_dir: str | Path | None = None,
    config: RenderConfig | None = None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """The folder of the rendered dataset (for `BopDataset`); rendered on first use, then from the cache.

    Args:
        cache_dir: default $POSEGRAD_CACHE, else $XDG_CACHE_HOME/posegrad, else ~/.cache/posegrad.
        config, workers, progress: as in `render_dataset`.

    Raises:
        DatasetError: the cache folder cannot be written.

    >>> import tempfile
    >>> tiny = RenderConfig(1, 1, width=160, height=120, focal=280.0, samples=1, occluded_share=0.0)
    >>> with tempfile.TemporaryDirectory() as cache:
    ...     root = toy_dataset(cache, tiny, workers=1, progress=False)
    ...     sorted(p.name for p in root.iterdir())
    ['camera.json', 'config.json', 'models', 'models_eval', 'test', 'train']
    """
    config = config or RenderConfig()
    cache = Path(cache_dir) if cache_dir is not None else default_cache()
    text = json.dumps({"version": RENDERER_VERSION, **asdict(config)}, sort_keys=True)
    final = cache / f"toy-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if final.is_dir():
        return final
    try:
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache))
    except OSError as error:
        raise DatasetError(
            f"Cannot write the cache {cache} ({error.strerror}): set POSEGRAD_CACHE to a writable folder."
        ) from error
    try:
        render_dataset(partial, config, workers=workers, progress=progress)
        partial.chmod(0o755)
        try:
            partial.rename(final)
        except OSError:  # another process was faster; its result is the same
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return final


def default_cache() -> Path:
    """$POSEGRAD_CACHE, else $XDG_CACHE_HOME/posegrad, else ~/.cache/posegrad."""
    if chosen := os.environ.get("POSEGRAD_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "posegrad"
