"""Memory for the blocks from which the kernels read a call."""

import struct
from typing import ClassVar

import torch

from posegrad.kernels import block

CPU = torch.device("cpu")
INTEGER = struct.Struct("=q")


class Buffer:
    """Memory for a block. A call takes one and gives it back at its end: none ever sees that of another, be that in
    another thread or inside of itself (a signal handler, a torch function mode, a finaliser that solves, too)."""

    _free: ClassVar[list["Buffer"]] = []

    def __init__(self) -> None:
        self.tensor = torch.empty(block.SIZE, dtype=torch.int64, device=CPU)
        self.view = memoryview(self.tensor.numpy()).cast("B")  # pyright: ignore[reportArgumentType]
        self.address = self.tensor.data_ptr()

    @classmethod
    def take(cls) -> "Buffer":
        """One that no other call uses."""
        try:
            return cls._free.pop()  # atomic
        except IndexError:
            return cls()

    def give_back(self) -> None:
        """For the next call. After an error it is not: threads of the pool may still read it."""
        self._free.append(self)
