import pytest
import torch

import posegrad as pg
from posegrad.nn import KeypointPoseNet, KeypointPrediction, map_points, soft_argmax

K = torch.tensor([[560.0, 0, 160], [0, 560, 120], [0, 0, 1]], dtype=torch.float64)


@pytest.fixture(scope="module")
def net() -> KeypointPoseNet:
    torch.manual_seed(0)
    return KeypointPoseNet(8, "test_resnet", image_size=64, width=16)


def points3d() -> torch.Tensor:
    return 30 * torch.randn(8, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_shapes_and_ranges(net: KeypointPoseNet) -> None:
    seen = net(torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8))
    assert isinstance(seen, KeypointPrediction)
    assert seen.logits.shape == (3, 8, 16, 16)
    assert seen.points2d.shape == seen.spread.shape == (3, 8, 2)
    assert seen.points2d.min() >= 1.5
    assert seen.points2d.max() <= 61.5
    # The confidence head starts at the inverse fourth power of the spread, and always has mean 1.
    expected = seen.spread.prod(-1) ** -2
    torch.testing.assert_close(seen.weights, expected / expected.mean(-1, keepdim=True))


def test_uniform_weights_are_one() -> None:
    plain = KeypointPoseNet(8, "test_resnet", image_size=64, width=16, weighting="uniform")
    assert torch.equal(plain(torch.rand(2, 3, 64, 64)).weights, torch.ones(2, 8))


def test_keypoints_are_decoded_from_the_sharpened_heatmap() -> None:
    for sharpness in (1.0, 2.0):
        net = KeypointPoseNet(8, "test_resnet", image_size=64, width=16, sharpness=sharpness)
        with torch.no_grad():
            net.to_logits.weight.mul_(30)
        seen = net(torch.rand(2, 3, 64, 64))
        p = seen.logits.flatten(-2).softmax(-1) ** sharpness
        p = (p / p.sum(-1, keepdim=True)).view_as(seen.logits)
        torch.testing.assert_close(seen.points2d, soft_argmax(p, 4), rtol=0, atol=1e-3)


def test_weights_have_mean_one_whatever_the_confidence(net: KeypointPoseNet) -> None:
    assert net.to_confidence is not None
    with torch.no_grad():
        net.to_confidence.bias.normal_()
        net.to_confidence.from_features.normal_()
        seen = net(torch.rand(2, 3, 64, 64))
        net.to_confidence.bias.zero_()
        net.to_confidence.from_features.zero_()
    assert seen.weights.std() > 0
    torch.testing.assert_close(seen.weights.mean(-1), torch.ones(2))


def test_bytes_and_floats_are_the_same_image(net: KeypointPoseNet) -> None:
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(net(image).points2d, net(image / 255).points2d)
    net.train()


def test_autocast_leaves_the_decoding_in_full_precision(net: KeypointPoseNet) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        seen = net(torch.rand(2, 3, 64, 64))
    assert {seen.logits.dtype, seen.points2d.dtype, seen.weights.dtype} == {torch.float32}


def perfect(points2d: torch.Tensor) -> KeypointPrediction:
    batch, count = points2d.shape[:2]
    ones = torch.ones(batch, count)
    return KeypointPrediction(
        torch.zeros(batch, count, 16, 16), points2d, ones[..., None].expand(-1, -1, 2), ones, 4
    )


def test_pnp_works_on_full_image_pixels(net: KeypointPoseNet) -> None:
    true = pg.Pose.from_rotvec(
        torch.tensor([[0.3, 1.2, -0.4]]).double(), torch.tensor([[20.0, -9, 500]]).double()
    )
    full = pg.project_points(points3d(), K, true)
    full_from_crop = torch.tensor([[[1.1, -0.7, 140.0], [0.7, 1.1, 60.0]]], dtype=torch.float64)
    linear = torch.linalg.inv(full_from_crop[..., :2])
    crop = (full - full_from_crop[..., 2][:, None]) @ linear.mT
    torch.testing.assert_close(map_points(crop, full_from_crop), full)
    solution = net.solve(perfect(crop), points3d(), K, full_from_crop)
    assert solution.ok.all()
    torch.testing.assert_close(solution.pose.R, true.R, atol=1e-9, rtol=0)
    torch.testing.assert_close(solution.pose.t, true.t, atol=1e-6, rtol=0)
    # Without the map the crop is taken for the image: another pose.
    assert (net.solve(perfect(crop), points3d(), K).pose.t - true.t).norm() > 1


def test_the_pose_reaches_every_parameter() -> None:
    torch.manual_seed(1)
    net = KeypointPoseNet(8, "test_resnet", image_size=64, width=16)
    for module in net.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # timm starts the last one of a residual branch at 0, which cuts off the branch until the first step.
            torch.nn.init.ones_(module.weight)
    true = pg.Pose.from_rotvec(torch.randn(4, 3).double(), torch.tensor([0.0, 0, 500]).double().expand(4, 3))
    seen = net(torch.rand(4, 3, 64, 64))
    solution = net.solve(seen, points3d(), K, init=true)
    seen_again = pg.project_points(points3d(), K, solution.pose)
    pg.masked_mean(seen_again.square().mean((-1, -2)), solution.ok).backward()
    assert solution.ok.all()
    first = next(m for m in net.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.weight.grad is not None
    assert first.weight.grad.abs().max() > 0
    assert not [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_keypoints": 3}, "num_keypoints: got 3"),
        ({"num_keypoints": 8, "num_objects": 0}, "num_objects: got 0"),
        ({"num_keypoints": 8, "image_size": 100}, "multiple of 32"),
        ({"num_keypoints": 8, "backbone": "resnet1"}, "nearest"),
    ],
)
def test_bad_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KeypointPoseNet(**options)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 64, 64), "expected \\(B, 3"),
        (torch.zeros(1, 1, 64, 64), "expected \\(B, 3"),
        (torch.zeros(1, 3, 60, 60), "multiple of 32"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.int64), "uint8"),
    ],
)
def test_bad_images(net: KeypointPoseNet, image: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        net(image)


def test_an_unknown_weighting_is_named() -> None:
    with pytest.raises(
        ValueError, match="weighting: got 'spread', expected one of learned, uniform, moments"
    ):
        KeypointPoseNet(8, "test_resnet", image_size=64, width=16, weighting="spread")  # pyright: ignore


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (None, "objects: got None"),
        (torch.tensor([0]), "expected \\(2,\\) int64"),
        (torch.tensor([0.0, 1.0]), "int64"),
        (torch.tensor([1, 2]), "positions in \\[0, 2\\), not ids"),
        (torch.tensor([-1, 0]), "not ids"),
    ],
)
def test_bad_objects(objects: torch.Tensor | None, message: str) -> None:
    net = KeypointPoseNet(8, "test_resnet", num_objects=2, image_size=64, width=16)
    with pytest.raises(ValueError, match=message):
        net(torch.rand(2, 3, 64, 64), objects)


def test_an_object_learns_by_its_own_head() -> None:
    net = KeypointPoseNet(8, "test_resnet", num_objects=3, image_size=64, width=16)
    net(torch.rand(2, 3, 64, 64), torch.tensor([2, 0])).points2d.sum().backward()
    gradient = net.to_logits.weight.grad
    assert gradient is not None
    assert [bool(g.abs().max() > 0) for g in gradient] == [True, False, True]
