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
    """The processes that share one training.

    Attributes:
        rank: number of this process, counted from 0.
        size: number of processes; 1 without torch.distributed.
    """

    rank: int = 0
    size: int = 1

    def shard(self, total: int) -> slice:
        """Returns the rows of a batch of `total` images that belong to this process."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def check(self, images: int, batch_size: int, drop_last: bool) -> None:
        """Checks that each process gets at least one image of each batch.

        Args:
            images: number of training images.
            batch_size: images of a batch of all processes.
            drop_last: True if a smaller last batch is left out.

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
        """Returns the weight of this shard's mean loss, so that the averaged gradients equal that of the whole batch of
        `total`.
        """
        rows = self.shard(total)
        return (rows.stop - rows.start) * self.size / total

    def summed(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums each tensor over all processes and returns the sums; `values` are not changed."""
        if self.size == 1:
            return values
        found = {name: value.detach().clone() for name, value in values.items()}
        for value in found.values():
            dist.all_reduce(value)
        return found

    def all_gather(self, values: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Returns the `values` of every process, in the order of the ranks."""
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
        """Overwrites tensors with those of the first process, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather_rows(self, values: Tensor, total: int) -> Tensor:
        """Concatenates the rows of all processes, in the order of the batch; gradients flow back to each process.

        Args:
            values: this process's rows, [B, ...].
            total: number of rows of all processes.
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
        """Returns the first process's `value`, in every process."""
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
    """Returns the group of processes that torchrun started; without torchrun a group of one."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), dist.get_world_size())


def start(processes: int) -> None:
    """Replaces this process by torchrun, which starts the same command in `processes` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [*command, "-m", "robust_distillation.cli", *sys.argv[1:]])


def started() -> bool:
    """Returns True in a process that torchrun started."""
    return "TORCHELASTIC_RUN_ID" in os.environ


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics in train mode are those of the whole batch of all processes.

    torch.nn.SyncBatchNorm does the same on GPUs only, so that it cannot be tested without two of them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalises images [B,C,H,W], in train mode by mean and variance over all processes."""
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
    """Turns the batch norm layers of a model into synchronised ones, in place, and returns the model."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d
    return model
