"""Keypoints that make a pose, found by gradient descent through PnP (the paper's first experiment, without a network).

The first term pulls the pose, the second keeps the keypoints where the pose projects them; without it the pose still
converges and the keypoints do not. `posegrad demo pose` does it with a network, and draws it.
"""

import torch

import posegrad as pg

points3d = torch.cartesian_prod(*3 * [torch.tensor([-1.0, 1.0])])
K = torch.tensor([[300.0, 0, 128], [0, 300, 128], [0, 0, 1]])
wanted = pg.Pose.from_rotvec(torch.tensor([0.4, -0.8, 0.3]), torch.tensor([0.1, -0.1, 5.0]))
target = pg.project_points(points3d, K, wanted)

torch.manual_seed(0)
keypoints = (target + 100 * torch.randn_like(target)).requires_grad_()
optimizer = torch.optim.SGD([keypoints], lr=1.0)
for _ in range(100):
    solution = pg.solve_pnp(keypoints, points3d, K)
    projection = pg.project_points(points3d, K, solution.pose)
    loss = (projection - target).square().mean() + (projection - keypoints).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

turn = pg.so3.log(solution.pose.R @ wanted.R.mT).norm().rad2deg()
print(f"pose off by {turn:.3f} degrees and {(solution.pose.t - wanted.t).norm():.4f}, loss {loss:.1e} px^2")
