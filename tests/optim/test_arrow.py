"""Arrow-shaped systems against dense linear algebra."""

import torch
from torch import Tensor

from posegrad.optim import arrow
from posegrad.optim.arrow import Arrow


def _system(size: int = 3, V: int = 4, F: int = 5, K: int = 6) -> tuple[Arrow, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    J = torch.randn(size, V, 20, F + K, generator=generator, dtype=torch.float64)
    H = J.mT @ J
    matrix = Arrow(H[..., :F, :F].sum(1), H[..., :F, F:], H[..., F:, F:])
    right = torch.randn(size, F + V * K, generator=generator, dtype=torch.float64)
    return matrix, right[:, :F], right[:, F:].unflatten(-1, (V, K))


def test_solution_complement_and_inverse() -> None:
    matrix, corner, blocks = _system()
    dense = matrix.dense()
    torch.testing.assert_close(dense, dense.mT)
    expected = torch.linalg.solve(dense, torch.cat([corner, blocks.flatten(1)], 1))
    x, y, positive = arrow.solve(matrix, corner, blocks)
    assert bool(positive.all())
    torch.testing.assert_close(torch.cat([x, y.flatten(1)], 1), expected)
    inverse = torch.linalg.inv(dense)
    own, each, _ = arrow.covariances(matrix)
    torch.testing.assert_close(own, inverse[:, :5, :5])
    for v in range(4):
        part = slice(5 + 6 * v, 11 + 6 * v)
        torch.testing.assert_close(each[:, v], inverse[:, part, part])
    schur = arrow.eliminate(matrix, corner, blocks).schur
    torch.testing.assert_close(schur, torch.linalg.inv(inverse[:, :5, :5]))


def test_packing_and_diagonals() -> None:
    matrix, corner, blocks = _system()
    for got, wanted in zip(Arrow.unpacked(matrix.packed(), 6), matrix, strict=True):
        assert torch.equal(got, wanted)
    more = matrix.plus_diagonal(corner, blocks).dense() - matrix.dense()
    torch.testing.assert_close(more, torch.diag_embed(torch.cat([corner, blocks.flatten(1)], 1)))


def test_what_is_not_positive_definite_is_told_and_leaves_its_neighbours() -> None:
    matrix, corner, blocks = _system()
    bad = Arrow(*(part.clone() for part in matrix))
    bad.blocks[0, 2, 3, 3] = -1.0
    bad.corner[1] -= 100 * torch.eye(5).double()
    expected = arrow.solve(matrix, corner, blocks)
    x, y, positive = arrow.solve(bad, corner, blocks)
    assert positive.tolist() == [False, False, True]
    assert bool(x.isfinite().all())
    assert bool(y.isfinite().all())
    torch.testing.assert_close((x[2], y[2]), (expected[0][2], expected[1][2]))
    schur = arrow.eliminate(bad, corner, blocks).schur
    smallest = arrow.definiteness(bad, schur)
    assert smallest[0] < 0
    assert smallest[1] < 0
    assert 0 < smallest[2] <= 1
    bad.corner[2] = torch.nan
    assert arrow.solve(bad, corner, blocks)[2].tolist() == [False] * 3


def test_gradient_passes_where_a_neighbour_has_no_factor() -> None:
    matrix, corner, blocks = _system()
    matrix.blocks[0, 0] *= -1
    leaf = matrix.blocks.clone().requires_grad_()
    x, y, _ = arrow.solve(matrix._replace(blocks=leaf), corner, blocks)
    (gradient,) = torch.autograd.grad(x.sum() + y.sum(), leaf)
    assert bool((gradient[0] == 0).all())
    assert bool(gradient.isfinite().all())
    assert bool((gradient[1:] != 0).any())
