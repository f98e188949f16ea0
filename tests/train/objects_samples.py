"""A dataset with two objects, and a network that answers with the truth."""

import json
import shutil
from pathlib import Path

import torch

from posegrad.data import CropDataset
from posegrad.nn import KeypointPoseNet, KeypointPrediction
from posegrad.pose import Pose
from posegrad.projection import project_points
from posegrad.train import Source
from posegrad.train.objective import invert_affine


def divide(dataset: Path, root: Path) -> None:
    """Copy a dataset of object 1, and call the object in every other frame 7, with a symmetry."""
    shutil.copytree(dataset, root)
    for path in root.glob("*/*/scene_gt.json"):
        frames = json.loads(path.read_text())
        for key, frame in frames.items():
            for item in frame:
                item["obj_id"] = 7 if int(key) % 2 else 1
        path.write_text(json.dumps(frames))
    for folder in ("models", "models_eval"):
        shutil.copy(root / folder / "obj_000001.ply", root / folder / "obj_000007.ply")
        info = json.loads((root / folder / "models_info.json").read_text())
        half_a_turn = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
        info["7"] = {**info["1"], "symmetries_discrete": [half_a_turn]}
        (root / folder / "models_info.json").write_text(json.dumps(info))


class Oracle(KeypointPoseNet):
    """Answers with the true keypoints: all that is left are the maps between crop, image and camera."""

    def __init__(self, source: Source) -> None:
        count = len(next(iter(source.keypoints.values())))
        super().__init__(count, "test_efficientnet", num_objects=len(source.objects), image_size=64, width=8)
        self.source = source
        self.place = 0

    def forward(self, image: torch.Tensor, objects: torch.Tensor | None = None) -> KeypointPrediction:
        crops = CropDataset(self.source.test, size=64, padding=1.3)
        rows = [crops[self.place + k] for k in range(len(image))]
        self.place += len(image)
        for row, seen in zip(rows, image, strict=True):
            assert torch.equal(row["image"], seen)
        ids = torch.tensor(list(self.source.objects))
        assert objects is not None
        assert torch.equal(ids[objects], torch.stack([row["object_id"] for row in rows]))
        affine = torch.stack([row["full_from_crop"] for row in rows])
        pose = Pose(torch.stack([row["R"] for row in rows]), torch.stack([row["t"] for row in rows]))
        keypoints = torch.stack(
            [torch.from_numpy(self.source.keypoints[int(row["object_id"])]) for row in rows]
        )
        full = project_points(keypoints, rows[0]["K"], pose)
        back = invert_affine(affine)
        points = full @ back[..., :2].mT + back[:, None, :, 2]
        ones = torch.ones(points.shape[:2])
        logits = torch.zeros(*points.shape[:2], 16, 16)
        return KeypointPrediction(logits, points, ones[..., None].expand(-1, -1, 2), ones, 4)
