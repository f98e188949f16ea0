"""Intrinsics from one view of known points, by gradient descent through PnP (the paper's third experiment).

`posegrad demo calibration` draws it; `posegrad demo chessboards` learns a real camera with its distortion.
"""

import torch

import posegrad as pg

points3d = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0], dtype=torch.float64)])
truth = torch.tensor([800.0, 700, 400, 300], dtype=torch.float64)
R, t = (
    torch.tensor([0.4, -0.8, 0.3], dtype=torch.float64),
    torch.tensor([0.1, -0.1, 5.0], dtype=torch.float64),
)
points2d = pg.project_points(points3d, pg.cameras.Pinhole(truth), pg.Pose.from_rotvec(R, t))

theta = torch.tensor([0.5, 0.2, -0.6, -0.4], dtype=torch.float64, requires_grad=True)
optimizer = torch.optim.SGD([theta], lr=1e-5, momentum=0.9)
for _ in range(200):
    camera = pg.cameras.Pinhole(1000 * theta.sigmoid())  # fx, fy, cx, cy
    solution = pg.solve_pnp(points2d, points3d, camera)
    loss = pg.reprojection_residuals(points2d, points3d, camera, solution.pose).square().sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

print(
    "found",
    [round(value, 2) for value in camera.params.tolist()],
    "true",
    truth.tolist(),
    f"loss {loss:.1e} px^2",
)
