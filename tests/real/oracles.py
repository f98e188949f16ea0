"""Costs that OpenCV and PoseLib reach on a problem, all evaluated by OpenCV's projection."""

import cv2
import numpy as np
import poselib

Pose = tuple[np.ndarray, np.ndarray]  # R, t
_STOP = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 200, 1e-15)


def cost(x: np.ndarray, z: np.ndarray, K: np.ndarray, distortion: np.ndarray, pose: Pose) -> float:
    """``1/2 sum |r|^2``; infinite where a point is not in front of the camera."""
    R, t = pose
    if not (np.isfinite(R).all() and np.isfinite(t).all() and (z @ R[2] + t[2]).min() > 0):
        return np.inf
    projected, _ = cv2.projectPoints(z, cv2.Rodrigues(R)[0], t, K, distortion)
    return 0.5 * float(np.square(projected[:, 0] - x).sum())


def opencv_poses(
    x: np.ndarray, z: np.ndarray, K: np.ndarray, distortion: np.ndarray, flags: tuple[int, ...]
) -> list[Pose]:
    """Every answer of ``cv2.solvePnPGeneric`` under these methods, after ``cv2.solvePnPRefineLM``."""
    poses = []
    for flag in flags:
        _, rotvecs, ts, _ = cv2.solvePnPGeneric(z, x, K, distortion, flags=flag)
        poses += [
            opencv_refined(x, z, K, distortion, (cv2.Rodrigues(r)[0], t))
            for r, t in zip(rotvecs, ts, strict=True)
        ]
    return poses


def opencv_refined(x: np.ndarray, z: np.ndarray, K: np.ndarray, distortion: np.ndarray, pose: Pose) -> Pose:
    R, t = pose
    rotvec, t = cv2.solvePnPRefineLM(z, x, K, distortion, cv2.Rodrigues(R)[0], t.reshape(3, 1).copy(), _STOP)
    return cv2.Rodrigues(rotvec)[0], t[:, 0]


def poselib_refined(x: np.ndarray, z: np.ndarray, model: str, params: np.ndarray, start: Pose) -> Pose:
    """``poselib.refine_absolute_pose`` with a plain squared loss; PoseLib's models are COLMAP's."""
    pose = poselib.CameraPose()
    pose.R, pose.t = start
    camera = {"model": model, "width": 0, "height": 0, "params": params.tolist()}
    options = {"loss_type": "TRIVIAL", "max_iterations": 200, "gradient_tol": 1e-14, "step_tol": 1e-14}
    pose, _ = poselib.refine_absolute_pose(x, z, pose, camera, options)
    return pose.R, pose.t
