"""Counts what code asks of the host, where every question waits for the device; lets the CPU play one."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from posegrad.optim import batch

# Operations whose result, or its shape, is read on the host; linalg's that raise read an error flag.
_QUESTIONS = {
    "_local_scalar_dense", "item", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_numpy", "argwhere",
    "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount", "histc",
    "_linalg_eigh", "_linalg_svd", "_linalg_solve_ex_check", "_linalg_check_errors", "linalg_eig",
    "linalg_cholesky", "linalg_inv", "linalg_lstsq", "cholesky",
}  # fmt: skip


class Questions(TorchDispatchMode):
    """``asked``: operations that read a result on the host, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        by_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)
            for argument in args[1:]
            if isinstance(argument, list | tuple)
            for index in argument
        )
        repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in _QUESTIONS or by_mask or repeats:
            self.asked[name] += 1
        return func(*args, **(kwargs or {}))


def play_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a device where a question waits for all that is under way."""
    monkeypatch.setattr(batch, "questions_are_cheap", lambda device: False)
