"""Structure and poses from several views, by gradient descent through PnP (the paper's second experiment, no network).

Every step solves the pose of each view for the structure so far, and follows the gradient of the reprojection error for
the structure. It comes out up to a similarity, or not at all: with seeds 2, 3 and 5 the descent ends at the truth, with
1, 4 and 6 in a local minimum with an RMS of 12 to 19 px. `posegrad demo sfm` does it with a network, and draws it.
"""

import torch

import posegrad as pg

torch.manual_seed(5)
views, points = 8, 40
truth = torch.randn(points, 3, dtype=torch.float64)
K = torch.tensor([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]], dtype=torch.float64)
t = torch.tensor([0.0, 0.0, 8.0], dtype=torch.float64).expand(views, 3)
cameras = pg.Pose.from_rotvec(torch.randn(views, 3, dtype=torch.float64), t)
points2d = pg.project_points(truth, K, cameras)
seen = torch.rand(views, points) < 0.7

structure = (0.3 * torch.randn(points, 3, dtype=torch.float64)).requires_grad_()
optimizer = torch.optim.Adam([structure], lr=0.03)
for _ in range(175):
    solution = pg.solve_pnp(points2d, structure, K, mask=seen)
    residual = pg.reprojection_residuals(points2d, structure, K, solution.pose)
    loss = pg.masked_mean(residual.square().sum(-1), seen & solution.ok[:, None])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# distances between points do not depend on where the structure lies, and their ratio not on its size
ratio = torch.pdist(structure.detach()) / torch.pdist(truth)
print(f"RMS {loss.sqrt():.3f} px; distances agree within {100 * ratio.std() / ratio.mean():.1e} %")
