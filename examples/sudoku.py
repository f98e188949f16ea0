"""Learn the rules of 4x4 Sudoku from solved puzzles alone, by gradients through a quadratic program (OptNet).

    python examples/sudoku.py            # needs quadprog: pip install quadprog

A puzzle is 64 numbers: for every cell and digit a 1 where the digit is given. The layer returns

    argmin_z  0.05 |z|^2 - puzzle . z    subject to  A z = b,  z >= 0

and nobody tells it that digits are not to repeat: A and b are learned, so that z is the solution. The program is solved
by quadprog, a compiled solver that knows nothing of gradients.

Reference: Amos & Kolter, "OptNet: Differentiable Optimization as a Layer in Neural Networks", ICML 2017, section 4.4.
"""

import argparse
import itertools
import time

import numpy as np
import quadprog
import torch
from torch import Tensor

import posegrad as pg

_SIZE, _EQUALITIES, _SPREAD = 64, 40, 0.1


def solutions() -> Tensor:
    """All 288 solved boards, (288, 16) digits from 0 to 3."""
    rows = list(itertools.permutations(range(4)))
    boards = []
    for board in itertools.product(rows, repeat=4):
        grid = np.array(board)
        columns = all(len(set(grid[:, j])) == 4 for j in range(4))
        if columns and all(len(set(grid[i : i + 2, j : j + 2].flat)) == 4 for i in (0, 2) for j in (0, 2)):
            boards.append(grid.ravel())
    return torch.from_numpy(np.stack(boards))


def puzzles(boards: Tensor, per_board: int, given: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Puzzles that have one solution: some of each board's digits, and the whole of it, (P, 64) each."""
    one_hot = torch.nn.functional.one_hot(boards, 4).double()
    questions, answers = [], []
    for number, board in enumerate(boards):
        found = 0
        while found < per_board:
            shown = torch.zeros(16, dtype=torch.bool)
            shown[torch.randperm(16, generator=generator)[:given]] = True
            if int((boards[:, shown] == board[shown]).all(-1).sum()) == 1:
                questions.append((one_hot[number] * shown[:, None]).flatten())
                answers.append(one_hot[number].flatten())
                found += 1
    return torch.stack(questions), torch.stack(answers)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    """``matrix x``, batched."""
    return (matrix @ x[..., None]).squeeze(-1)


def solve(args: dict[str, Tensor]) -> Tensor:
    """quadprog, one puzzle after the other; the constraints are shared by all."""
    A, b = args["A"][0].numpy(), args["b"][0].numpy()
    C, d = np.concatenate([A, np.eye(_SIZE)]).T, np.concatenate([b, np.zeros(_SIZE)])
    answers = []
    for puzzle in args["puzzle"].numpy():
        answers.append(quadprog.solve_qp(_SPREAD * np.eye(_SIZE), puzzle, C, d, len(b))[0])
    return torch.from_numpy(np.stack(answers))


PROGRAM = pg.objective_problem(
    lambda z, args: (0.5 * _SPREAD * z.square() - args["puzzle"] * z).sum(-1),
    equality=lambda z, args: times(args["A"], z) - args["b"],
    inequality=lambda z, args: -z,
)


class Sudoku(torch.nn.Module):
    """The layer and its parameters: any A, and a point z0 > 0 that makes ``A z = A z0`` feasible."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.rand(_EQUALITIES, _SIZE, generator=generator, dtype=torch.float64)
        self.A = torch.nn.Parameter(start)
        self.log_z0 = torch.nn.Parameter(torch.zeros(_SIZE, dtype=torch.float64))
        self.layer = pg.argmin_layer(solve, PROGRAM)

    def forward(self, puzzle: Tensor) -> pg.Solution:
        """Solve a batch (B, 64)."""
        b = times(self.A, self.log_z0.exp())
        return self.layer({"puzzle": puzzle, "A": self.A[None], "b": b[None]})


def share_solved(model: Sudoku, questions: Tensor, answers: Tensor) -> float:
    """Share of puzzles of which every digit is right."""
    args = {"puzzle": questions, "A": model.A.detach()[None]}
    args["b"] = times(args["A"], model.log_z0.detach().exp())
    digits = solve(args).unflatten(-1, (16, 4)).argmax(-1)
    return (digits == answers.unflatten(-1, (16, 4)).argmax(-1)).all(-1).double().mean().item()


def main() -> None:
    """Train, and print the share of unseen puzzles that are solved."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="training steps (default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="puzzles a step (default %(default)s)")
    parser.add_argument("--given", type=int, default=8, help="digits given of 16 (default %(default)s)")
    parser.add_argument("--rate", type=float, default=0.1, help="Adam's learning rate (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(options.seed)
    boards = solutions()
    boards = boards[torch.randperm(len(boards), generator=generator)]
    questions, answers = puzzles(boards, 4, options.given, generator)
    held_out = len(questions) // 4  # of boards that are never seen in training
    test, train = (questions[:held_out], answers[:held_out]), (questions[held_out:], answers[held_out:])
    model = Sudoku(generator)
    optimiser = torch.optim.Adam(model.parameters(), lr=options.rate)
    began = time.process_time()
    print(f"{len(train[0])} puzzles to learn from, {len(test[0])} of other boards to test on")
    for step in range(options.steps + 1):
        if step % 20 == 0:
            solved, seconds = share_solved(model, *test), time.process_time() - began
            print(f"step {step:4d}  {seconds:6.1f} s of CPU  unseen puzzles solved {100 * solved:5.1f} %")
        chosen = torch.randint(len(train[0]), (options.batch,), generator=generator)
        solution = model(train[0][chosen])
        error = (solution.variable - train[1][chosen]).square().mean(-1)
        loss = pg.masked_mean(error, solution.ok)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            print(f"           loss {loss.item():.4f}, differentiable {solution.ok.double().mean():.2f}")


if __name__ == "__main__":
    main()
