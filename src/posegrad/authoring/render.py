"""The job of `posegrad data render`."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from posegrad.authoring.config import RenderJob
from posegrad.authoring.outcome import Outcome
from posegrad.authoring.symmetries import judge_symmetries, stated_symmetries
from posegrad.data.backgrounds import PhotoBackgrounds, random_background
from posegrad.data.camera_file import read_camera
from posegrad.data.json_files import read_json
from posegrad.data.mesh import Mesh
from posegrad.data.mesh_import import import_mesh
from posegrad.data.render_config import FrameConfig
from posegrad.data.render_objects import render_objects
from posegrad.train.errors import RunError


def render(job: RenderJob) -> Outcome:
    """Read the meshes, render the frames into a folder beside --out, then give it its name.

    Raises:
        RunError, DatasetError: meshes or settings that cannot be used, in one sentence.
    """
    _require_new(job.out)
    notes: list[str] = []
    config = _frames(job, notes)
    meshes = {
        number: import_mesh(path, job.unit, center=job.center, note=notes.append)
        for number, path in job.files.items()
    }
    symmetries = stated_symmetries(meshes, job.symmetric_axis, job.symmetry_file)
    for number, mesh in meshes.items():
        found = judge_symmetries(mesh, symmetries.get(number, {}))
        notes += [f"object {number} ({job.files[number].name}): {sentence}" for sentence in found]
    job.out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{job.out.name}-", dir=job.out.parent))
    try:
        render_objects(
            partial,
            meshes,
            config,
            frames={"train": job.train_frames, "test": job.test_frames},
            distance=job.distance,
            symmetries=symmetries,
            seed=job.seed,
            image_format=job.image_format,
            masks=job.masks,
            workers=job.workers,
        )
        settings = json.dumps(dataclasses.asdict(job), indent=2, default=str)
        (partial / "config.json").write_text(settings + "\n")
        partial.chmod(0o755)
        if job.out.is_dir():
            job.out.rmdir()
        partial.rename(job.out)
    except OSError as error:
        error.filename = error.filename or str(job.out)  # that the disk is full comes without a name
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Outcome(_text(job, config, meshes, notes))


def _require_new(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"--out: {out} is not empty; remove it or choose another folder")
    if out.exists() and not out.is_dir():
        raise RunError(f"--out: {out} is a file; choose another folder")


def _frames(job: RenderJob, notes: list[str]) -> FrameConfig:
    if job.camera is not None:
        K, width, height, lens = read_camera(job.camera)
        if lens:
            notes.append(
                f"{job.camera.name}: pictures are rendered without its distortion ({', '.join(lens)}): undistort your "
                f"photographs (cv2.undistort, same K) before training on or predicting from them."
            )
    else:
        width, height = job.width, job.height
        focal = job.focal if job.focal is not None else float(width)
        K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    if job.backgrounds is not None and not job.backgrounds.is_dir():
        raise RunError(f"--backgrounds: no folder {job.backgrounds}")
    up = np.eye(3)["xyz".index(job.up[-1])] * (-1 if job.up.startswith("-") else 1)
    return FrameConfig(
        K,
        width,
        height,
        viewpoints=job.viewpoints,
        up=(float(up[0]), float(up[1]), float(up[2])),
        in_plane_deg=job.in_plane,
        occluded_share=job.occluded,
        min_visibility=job.min_visibility,
        samples=job.samples,
        per_frame=job.objects_per_frame,
        background=PhotoBackgrounds(job.backgrounds) if job.backgrounds is not None else random_background,
    )


def _text(job: RenderJob, config: FrameConfig, meshes: dict[int, Mesh], notes: list[str]) -> str:
    lines = [
        f"{job.out}: {job.train_frames} train and {job.test_frames} test frames, {config.width} x "
        f"{config.height} px, focal length {config.K[0, 0]:g} px"
    ]
    info = read_json(job.out / "models" / "models_info.json")
    for number, mesh in meshes.items():
        entry = info[str(number)]
        x, y, z = (entry[f"size_{axis}"] for axis in "xyz")
        lines.append(
            f"object {number}: {job.files[number].name}, {x:.1f} x {y:.1f} x {z:.1f} mm, diameter "
            f"{entry['diameter']:.1f} mm, {len(mesh.faces)} faces"
        )
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])
