"""The frames of a rendered dataset, written split by split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from posegrad.data.bop_writer import Annotation, BopWriter
from posegrad.data.image import encode_image
from posegrad.data.procedural import procedural_object
from posegrad.data.raycast import RayCaster
from posegrad.data.render import Frame

_OCCLUDERS = 6


def random_occluders(seed: int) -> list[RayCaster]:
    """Six procedural objects, other ones than `procedural_object(seed)`."""
    return [
        RayCaster(procedural_object(number, spacing=1.8))
        for number in range(seed + 1000, seed + 1000 + _OCCLUDERS)
    ]


def write_splits(
    root: Path,
    counts: Mapping[str, int],
    draw: Callable[[np.random.Generator], Frame],
    K: np.ndarray,
    *,
    seed: int,
    image_format: str,
    masks: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Writes scene 1 of each split, images from 0.

    Args:
        root: the dataset folder.
        counts: frames by split.
        draw: one frame, by its own random stream of (seed, number of the split, image id); called from threads.
        K: (3, 3) intrinsics.
        seed: >= 0.
        image_format: "jpg" or "png".
        masks: write the masks of the visible parts.
        workers: threads, default one per available core; the files do not depend on it.
        progress: show a progress bar.
    """

    def frame(job: tuple[int, int]) -> tuple[bytes, list[Annotation]]:
        rendered = draw(np.random.default_rng([seed, *job]))
        labels = rendered.annotations
        if not masks:
            labels = [replace(label, mask_visib=None) for label in labels]
        return encode_image(rendered.image, image_format), labels

    bar = tqdm(total=sum(counts.values()), desc="rendering the dataset", unit="frame", disable=not progress)
    # threads do: Embree, OpenCV and numpy's loops all release the interpreter lock
    with bar, ThreadPoolExecutor(workers or _cores()) as pool:
        for number, (split, count) in enumerate(counts.items()):
            with BopWriter(root, split, image_format=image_format) as writer:
                jobs = [(number, index) for index in range(count)]
                for index, (encoded, labels) in enumerate(_in_order(pool, frame, jobs)):
                    writer.add_frame(1, index, encoded, K, labels)
                    bar.update()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _in_order(pool: ThreadPoolExecutor, function, jobs: list, ahead: int = 64) -> Iterator:
    """pool.map with a bounded number of results waiting."""
    for start in range(0, len(jobs), ahead):
        yield from pool.map(function, jobs[start : start + ahead])
