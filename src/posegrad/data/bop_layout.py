"""Where the files of a dataset in BOP layout lie."""

from pathlib import Path

from posegrad.data.errors import DatasetFileError

MODEL_FOLDERS = ("models_eval", "models", "models_color")
IMAGE_FOLDERS = ("rgb", "gray")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif")


def scene_folders(root: Path, split_folder: str) -> list[Path]:
    """The folders of the scenes of one part of a dataset, by number; there is at least one.

    Raises:
        DatasetFileError: there is none, or no such part.
    """
    if not root.is_dir():
        raise DatasetFileError(f"No dataset folder {root}: check the path.")
    if scenes := _scenes(root / split_folder):
        return scenes
    absent = f"folder {split_folder!r} in {root}"
    if (root / split_folder).is_dir():
        absent = f"scene folder (such as 000001) in {root / split_folder}"
    present = sorted(p.name for p in root.iterdir() if _scenes(p))
    there = f"scenes are in {', '.join(present)}" if present else "no folder there has scenes"
    raise DatasetFileError(f"No {absent}: {there}.")


def _scenes(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [p for p in folder.iterdir() if p.name.isdigit() and (p / "scene_gt.json").exists()]
    return sorted(found, key=lambda p: int(p.name))


def model_path(root: Path, object_id: int, folder: str | None = None) -> Path:
    """The mesh file of an object of a dataset: see `BopDataset.model_path`."""
    folders = MODEL_FOLDERS if folder is None else (folder,)
    for name in folders:
        for suffix in (".ply", ".ply.gz"):
            path = root / name / f"obj_{object_id:06d}{suffix}"
            if path.is_file():
                return path
    raise DatasetFileError(
        f"No mesh obj_{object_id:06d}.ply in {', '.join(folders)} of {root}: download the dataset's models."
    )


def image_path(folder: Path, image_id: int) -> Path:
    """The picture of a frame; where none exists, the path under which it was expected."""
    for name in IMAGE_FOLDERS:
        for suffix in IMAGE_SUFFIXES:
            path = folder / name / f"{image_id:06d}{suffix}"
            if path.is_file():
                return path
    return folder / IMAGE_FOLDERS[0] / f"{image_id:06d}{IMAGE_SUFFIXES[0]}"
