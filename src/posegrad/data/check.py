"""Checking a dataset in BOP layout: everything that is wrong with it, one line each."""

from __future__ import annotations

from pathlib import Path

from posegrad.data.bop_layout import image_path
from posegrad.data.check_boxes import Scene, Size
from posegrad.data.check_images import check_images, check_masks
from posegrad.data.check_json import read_object
from posegrad.data.check_models import Models, check_annotated, check_models
from posegrad.data.check_scene import check_geometry, read_scene
from posegrad.data.errors import DatasetError
from posegrad.data.findings import Findings
from posegrad.data.json_files import read_split


def check_dataset(root: str | Path, *, split: str | Path | None = None, quick: bool = False) -> Findings:
    """Everything that is wrong with a dataset in BOP layout, as `Findings.problems`, and notes on what is odd.

    Read are: meshes and models_info.json, the JSON files of every scene, every picture and mask. Compared are:
    diameters and boxes of models_info.json with the meshes, the depth of the objects with their diameter (metres
    instead of millimetres), rotations with SO(3), intrinsics with the pictures, boxes with the pictures and with the
    projected meshes. Nothing is raised for damaged content.

    Args:
        root: the dataset folder.
        split: a file {"train": [image ids], "test": [...]}: it is checked, and only its frames need pictures.
        quick: read the pictures' headers only.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(*(problem.what + ": " + problem.fix for problem in check_dataset(folder).problems))
    no folder has a scene: make it FOLDER/000001/scene_gt.json, FOLDER for instance train or test
    """
    root = Path(root)
    findings = Findings(root)
    if not root.is_dir():
        findings.add(root, "root", "no such folder", "check the path")
        return findings
    scenes = _scenes(root, findings)
    if not scenes:
        return findings
    models = _guarded(lambda: check_models(root, findings), root, findings) or Models()
    wanted, annotated = None, set()
    if split is not None:
        wanted = _guarded(lambda: _split(Path(split), findings), Path(split), findings)
    read: list[Scene] = []
    for folder in scenes:
        scene = _guarded(lambda folder=folder: read_scene(folder, findings), folder, findings)
        if scene is None:
            continue
        read.append(scene)
        annotated |= {entry.object_id for entries in scene.frames.values() for entry in entries}
        findings.count("scenes", 1)
        findings.count("frames", len(scene.frames))
        findings.count("annotations", sum(len(entries) for entries in scene.frames.values()))
        _guarded(
            lambda scene=scene: _scene(scene, models, wanted, findings, quick=quick, split=split),
            folder,
            findings,
        )
    findings.count("objects", len(annotated))
    if models.by_id:
        check_annotated(models, annotated, root, findings)
    if wanted is not None and split is not None:
        frames = {frame for scene in read for frame in scene.frames}
        for frame in sorted(wanted - frames):
            findings.add(
                Path(split), "unknown", "no annotation in any scene_gt.json", "correct the list", frame
            )
    return findings


def _guarded(job, file: Path, findings: Findings):
    """The job's result; None after an exception, which is a finding: a check must come to its end."""
    try:
        return job()
    except Exception as error:
        findings.add(
            file, "crash", f"cannot be checked ({type(error).__name__}: {error})",
            "its content is far from BOP's format: compare with a dataset of posegrad data render",
        )  # fmt: skip
        return None


def _scenes(root: Path, findings: Findings) -> list[Path]:
    """Folders of scenes, by folder and number; what is near to one, but not read, is a finding."""
    found, elsewhere = [], []
    for path in sorted(
        [*root.glob("scene_gt.json"), *root.glob("*/scene_gt.json"), *root.glob("*/*/scene_gt.json")]
    ):
        folder = path.parent
        if len(folder.relative_to(root).parts) != 2:
            elsewhere.append(folder)
        elif not folder.name.isdigit():
            findings.add(
                folder, "name", "the scene is not read", "its folder must be a number, such as 000001"
            )
        else:
            found.append(folder)
    for path in sorted(root.glob("*/*/scene_camera.json")):
        if path.parent not in found and path.parent.name.isdigit():
            findings.note(
                path.parent,
                "no gt",
                "no scene_gt.json",
                "the scene has no poses to train on or to compare with",
            )
    if not found and elsewhere:
        depth = len(elsewhere[0].relative_to(root).parts)
        right = root.resolve().parents[0 if depth == 1 else 1]
        findings.add(root, "root", "this is a folder inside a dataset", f"pass the dataset's folder, {right}")
    elif not found and not findings.problems:
        findings.add(
            root, "root", "no folder has a scene",
            "make it FOLDER/000001/scene_gt.json, FOLDER for instance train or test",
        )  # fmt: skip
    return found


def _split(path: Path, findings: Findings) -> set[int] | None:
    try:
        lists = read_split(path)
    except DatasetError as error:
        what = str(error).removeprefix(str(path)).removeprefix(": ").rstrip(".")
        findings.add(path, "split", what, "correct the file")
        return None
    for name in ("train", "test"):
        if not lists.get(name):
            findings.add(
                path, name, f"no list {name!r}, or an empty one", 'write {"train": [..], "test": [..]}'
            )
    for name, ids in lists.items():
        if doubled := len(ids) - len(set(ids)):
            findings.add(path, f"double {name}", f"{doubled} ids are twice in {name!r}", "delete them")
    for frame in sorted(set(lists.get("train", [])) & set(lists.get("test", []))):
        findings.add(path, "both", "in both lists", "take it out of one", frame)
    return {frame for ids in lists.values() for frame in ids}


def _scene(
    scene: Scene, models: Models, wanted: set[int] | None, findings: Findings, *, quick: bool, split: object
) -> None:
    hint = "restore it" if split is not None else _missing_hint(scene, findings.root)
    sizes = check_images(scene, wanted, hint, findings, quick=quick)
    _check_camera(findings.root, sizes, findings)
    check_geometry(scene, models, sizes, findings)
    check_masks(scene, sizes, findings)


def _missing_hint(scene: Scene, root: Path) -> str:
    """Names a split file beside the scenes that lists only frames with pictures."""
    for path in sorted(root.glob("*.json")):
        try:
            ids = {frame for frames in read_split(path).values() for frame in frames}
        except (DatasetError, OSError, RecursionError):
            continue
        if ids and all(frame in scene.frames and image_path(scene.folder, frame).is_file() for frame in ids):
            return f"restore it, or pass --split {path}, which lists only frames that are there"
    return "restore it, or name the frames that are there by --split FILE"


def _check_camera(root: Path, sizes: dict[int, Size], findings: Findings) -> None:
    path = root / "camera.json"
    if not path.exists():
        return
    content = read_object(path, findings) or {}
    size = content.get("width"), content.get("height")
    if not all(isinstance(value, int) for value in size):
        return
    for frame, actual in sizes.items():
        if actual != size:
            findings.note(
                path, "size", f"{size[0]} x {size[1]} px, but pictures are {actual[0]} x {actual[1]}",
                "correct it, unless the folder mixes cameras", frame,
            )  # fmt: skip
            return
