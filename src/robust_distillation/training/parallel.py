"""One training on several devices: processes of torch.distributed, each with its shard of every batch.

The batch is the global one: with more processes each has fewer of its rows; learning rate, schedule and number of steps
stay the same. Noise is drawn for the whole batch, and each process takes its rows. So the number of processes changes
rounding only, as long as batch norm is `synchronised`. With `local` each process normalises its shard on its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from robust_distillation.errors import UserError

SYNCHRONISED = "synchronised"  # batch norm of all processes together; or `local`


@dataclass(frozen=True)
class Group:
    """The processes of torch.distributed that share one training. Each process trains on its own rows of every batch.
    `training.parallel.init_group` returns this object.

    With `size` 1 no function of this class communicates.

    Attributes:
        rank: number of this process, from 0 to `size` - 1.
        size: number of processes; 1 without torch.distributed.
    """

    rank: int = 0
    size: int = 1

    def shard(self, total: int) -> slice:
        """Returns the rows of a batch that belong to this process, as a slice. The slices of all ranks follow each
        other, and their lengths differ by at most one.

        Args:
            total: number of images in the whole batch of all processes.
        """
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def check(self, images: int, batch_size: int, drop_last: bool) -> None:
        """Checks that each process gets at least one image of each batch.

        Args:
            images: number of training images.
            batch_size: number of images in a whole batch of all processes.
            drop_last: True if a smaller last batch of an epoch is left out.

        Raises:
            UserError: a batch has fewer images than there are processes.
        """
        last = 0 if drop_last else images % batch_size
        if (smallest := min(batch_size, last or batch_size)) < self.size:
            raise UserError(
                f"{images} images in batches of {batch_size}: one of them has {smallest}, for {self.size} devices. "
                "Give another training.batch_size, set training.drop_last, or take fewer devices"
            )

    def weight(self, total: int) -> float:
        """Returns the factor of this process's mean loss: rows of this process x `size` / `total`.

        With it, the average of the processes' gradients is the gradient of the mean loss over the whole batch, even if
        the shards differ in size. It is 1 for equal shards.

        Args:
            total: number of images in the whole batch of all processes.
        """
        rows = self.shard(total)
        return (rows.stop - rows.start) * self.size / total

    def summed(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums tensors over all processes.

        Args:
            values: tensors by name, with the same names and shapes in every process; not changed.

        Returns:
            The sums by name, detached copies that are equal in all processes. With one process, `values`.
        """
        if self.size == 1:
            return values
        found = {name: value.detach().clone() for name, value in values.items()}
        for value in found.values():
            dist.all_reduce(value)
        return found

    def all_gather(self, values: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Collects tensors from all processes.

        Args:
            values: tensors by name, with the same names and shapes in every process.

        Returns:
            The `values` of each process, in the order of the ranks, detached. With one process, `[values]`.
        """
        if self.size == 1:
            return [values]
        found: list[dict[str, Tensor]] = [{} for _ in range(self.size)]
        for name, value in values.items():
            each = [torch.empty_like(value) for _ in range(self.size)]
            dist.all_gather(each, value.detach())
            for own, one in zip(found, each, strict=True):
                own[name] = one
        return found

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with the values that they have in the process of rank 0, in place. With one process
        nothing is done.

        Args:
            tensors: tensors in the same order and of the same shapes in every process.
        """
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather_rows(self, values: Tensor, total: int) -> Tensor:
        """Concatenates the rows of all processes, in the order of the batch. Gradients flow back to the process that
        each row is from.

        Args:
            values: the rows of this process, [B, ...], where B is the length of `shard(total)`.
            total: number of rows in the whole batch of all processes.

        Returns:
            All rows, [total, ...], equal in all processes. With one process, `values`.
        """
        if self.size == 1:
            return values
        shards = [Group(rank, self.size).shard(total) for rank in range(self.size)]
        longest = max(shard.stop - shard.start for shard in shards)
        padded = torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])
        gather = all_gather if values.requires_grad else _all_gather_without_gradient
        parts = gather(padded.contiguous())
        return torch.cat([part[: shard.stop - shard.start] for part, shard in zip(parts, shards, strict=True)])

    def broadcast_object(self, value: Any) -> Any:
        """Returns, in every process, the value that the process of rank 0 passes.

        Args:
            value: any object that can be pickled; ignored in the other processes.
        """
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _all_gather_without_gradient(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return parts


def init_group(device: torch.device) -> Group:
    """Joins the process group that torchrun started, and returns it. Without torchrun it returns a group of one
    process.

    torch.distributed is initialised if it is not yet.

    Args:
        device: device of this process's networks. It decides the backend: nccl for a GPU, gloo for the CPU.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), dist.get_world_size())


def start(processes: int) -> None:
    """Replaces this process by torchrun, which runs the same command line once in each of several new processes. Never
    returns.

    Args:
        processes: number of processes to start, all on this machine.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [*command, "-m", "robust_distillation.cli", *sys.argv[1:]])


def started() -> bool:
    """Returns True if torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose mean and variance in train mode are those of the whole batch of all processes.

    It needs an initialised torch.distributed in train mode. It does the same as torch.nn.SyncBatchNorm, which runs on
    GPUs only and so could not be tested on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises the activations `x` [B,C,H,W]; the result has the shape and dtype of `x`.

        In train mode it uses mean and variance over the rows of all processes, and updates the running statistics. In
        eval mode it uses the running statistics.
        """
        if not self.training:
            return super().forward(x)
        axes, shape = (0, 2, 3), (1, -1, 1, 1)
        wide = x.to(self.running_mean.dtype)  # bfloat16 cannot count to 257
        count = all_reduce(torch.full((), x.numel() / x.shape[1], dtype=wide.dtype, device=x.device))
        mean = all_reduce(wide.sum(axes)) / count
        centred = wide - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def synchronised(model: nn.Module) -> nn.Module:
    """Changes the batch norm layers of `model` to SynchronisedBatchNorm2d, in place, and returns `model`.

    Only layers whose class is exactly torch.nn.BatchNorm2d are changed; their parameters and buffers stay as they are.
    """
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d
    return model
