"""State of a method with a row for each training image, too large to be written whole with each saved state."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImageTable(nn.Module):
    """Named tensors with one row for each training image, which a method reads and writes row by row.

    A method's `build` returns it. Its values lie in the memory of the training's device and are no buffers: they are
    not part of the saved state of the training. When a state is saved, `training.tables` writes those rows alone that
    changed since the state before, to a file of their own beside it. So a killed training goes on with exactly the
    rows of the state from which it goes on.

    A method reads and writes in `step.once`, and writes the rows of the whole batch in every process (`step.gather`).

    Attributes:
        values: the tensors by name, each [N, ...] for N training images; empty before the first row is written.
        version: number of the call of `write` that wrote each row last, counted from 1, int64 [N]; 0: the row has no
            value.
        writes: number of calls of `write`, an int64 tensor of no dimensions.
    """

    version: Tensor
    writes: Tensor

    def __init__(self, images: int):
        """Creates a table without values.

        Args:
            images: number N of training images.
        """
        super().__init__()
        self.values: dict[str, Tensor] = {}
        self.register_buffer("version", torch.zeros(images, dtype=torch.int64))
        self.register_buffer("writes", torch.zeros((), dtype=torch.int64))

    def read(self, name: str, ids: Tensor, default: Tensor) -> Tensor:
        """Returns the rows of some images.

        Args:
            name: name of the tensor.
            ids: positions of the images in the training split, int64 [B].
            default: what stands in for rows without a value, [B, ...].

        Returns:
            A new tensor [B, ...].
        """
        if name not in self.values:
            return default.clone()
        known = self.version[ids] > 0
        return torch.where(known.view(-1, *[1] * (default.ndim - 1)), self.values[name][ids], default)

    @torch.no_grad()
    def write(self, ids: Tensor, **rows: Tensor) -> None:
        """Writes the rows of some images, in place.

        Args:
            ids: positions of the images in the training split, int64 [B], of the whole batch of all processes.
            **rows: the values by name, [B, ...] each, always with the same names and shapes.
        """
        for name, values in rows.items():
            self.reserve(name, values)[ids] = values
        self.writes += 1
        self.version[ids] = self.writes

    def reserve(self, name: str, like: Tensor) -> Tensor:
        """Returns the tensor `name`, [N, ...]. If it does not exist, it is made with the row shape and dtype of `like`,
        on the device of `version`.
        """
        if name not in self.values:
            shape = len(self.version), *like.shape[1:]
            self.values[name] = torch.zeros(shape, dtype=like.dtype, device=self.version.device)
        return self.values[name]

    @torch.no_grad()
    def clear(self) -> None:
        """Forgets all rows: from now on `read` returns the default for them."""
        self.version.zero_()
