"""Checking the pictures and masks of one scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from posegrad.data.bop_layout import IMAGE_FOLDERS, image_path
from posegrad.data.check_boxes import Scene, Size
from posegrad.data.errors import DatasetError
from posegrad.data.findings import Findings
from posegrad.data.image import load_image

_AT_ONCE = 4
"""Threads that decode."""


def check_images(
    scene: Scene, wanted: set[int] | None, hint: str, findings: Findings, *, quick: bool
) -> dict[int, Size]:
    """Sizes (width, height) of the pictures of the annotated frames that can be read and have the usual size.

    Args:
        scene: whose frames.
        wanted: only these frames need their picture; None: all.
        hint: what to do about missing pictures.
        findings: what is wrong goes there.
        quick: read headers only.
    """
    frames = [frame for frame in scene.frames if wanted is None or frame in wanted]
    paths = {frame: image_path(scene.folder, frame) for frame in frames}
    for frame, path in paths.items():
        if not path.is_file():
            what = "the picture of an annotated frame is missing"
            findings.add(path.parent, "missing", what, hint, frame)
    present = {frame: path for frame, path in paths.items() if path.is_file()}
    if frames and not present:
        findings.add(scene.folder, "none", f"none of the {len(frames)} pictures is there", hint)
    findings.count("pictures", len(present))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = tqdm(
            pool.map(lambda path: _size(path, quick), present.values()),
            desc=f"reading {scene.folder.relative_to(findings.root)}", total=len(present), unit="picture", leave=False,
            disable=None,
        )  # fmt: skip
        sizes: dict[int, Size] = {}
        for (frame, path), result in zip(present.items(), results, strict=True):
            if isinstance(result, str):
                findings.add(
                    path, "unreadable", result, "copy it again, or leave the frame out by --split", frame
                )
            else:
                sizes[frame] = result
    _unannotated(scene, findings)
    usual = Counter(sizes.values()).most_common(1)
    for frame, size in list(sizes.items()):
        if size != usual[0][0]:
            del sizes[frame]  # what does not fit this picture is a consequence
            (width, height), (w, h) = size, usual[0][0]
            findings.add(
                present[frame], "size", f"{width} x {height} px, most of the scene are {w} x {h}",
                "take the picture that was annotated, or scale it back", frame,
            )  # fmt: skip
    return sizes


def _size(path: Path, quick: bool) -> Size | str:
    """The size of a picture, or what is wrong with it."""
    try:
        if quick:
            with Image.open(path) as image:
                return image.size
        height, width = load_image(path).shape[:2]
        return width, height
    except DatasetError as error:
        return f"truncated or not a picture ({str(error.__cause__ or error).replace(str(path), path.name)})"
    except Exception as error:  # decoders raise many types on damaged files
        return f"not a readable picture ({type(error).__name__}: {error})"


def _unannotated(scene: Scene, findings: Findings) -> None:
    for name in IMAGE_FOLDERS:
        folder = scene.folder / name
        if not folder.is_dir():
            continue
        extra = [
            p
            for p in folder.iterdir()
            if p.is_file() and not (p.stem.isdigit() and int(p.stem) in scene.frames)
        ]
        if extra:
            findings.note(
                folder,
                "extra",
                f"{len(extra)} files without annotation (such as {extra[0].name})",
                "they are not read",
            )


def check_masks(scene: Scene, sizes: dict[int, Size], findings: Findings) -> None:
    """Masks of the visible parts, where the scene has any: one per object, of the picture's size."""
    folder = scene.folder / "mask_visib"
    if not folder.is_dir():
        return
    for path, frame in _mask_paths(folder, scene, sizes):
        if not path.is_file():
            findings.note(
                folder, "missing", "the mask of an annotated object is missing", "masks are optional", frame
            )
            continue
        size = _size(path, quick=True)
        if isinstance(size, str):
            findings.add(path, "mask", size, "copy it again; masks are optional: it may be deleted", frame)
        elif size != sizes[frame]:
            findings.add(
                path, "mask", f"{size[0]} x {size[1]} px, its picture {sizes[frame][0]} x {sizes[frame][1]}",
                "make them of one size", frame,
            )  # fmt: skip


def _mask_paths(folder: Path, scene: Scene, sizes: dict[int, Size]) -> Iterable[tuple[Path, int]]:
    for frame in sizes:
        for entry in scene.frames[frame]:
            yield folder / f"{frame:06d}_{entry.number:06d}.png", frame
