"""One training on several devices: processes of torch.distributed, each with its share of every batch.

The batch is the global one: with more processes each has less of it, and learning rate, schedule and steps stay what
they are. Noise is drawn for the whole batch, and each process takes its rows, so the number of processes changes
rounding alone as long as batch norm is `synchronised`; with `local` each process normalises its share by itself.
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
    """Rank of this process among `size`; by itself it is the only one."""

    rank: int = 0
    size: int = 1

    def rows(self, total: int) -> slice:
        """Its share of a batch of `total`."""
        return slice(total * self.rank // self.size, total * (self.rank + 1) // self.size)

    def check(self, images: int, batch_size: int, drop_last: bool) -> None:
        """Raises UserError where a process would have no image of some batch."""
        last = 0 if drop_last else images % batch_size
        if (smallest := min(batch_size, last or batch_size)) < self.size:
            raise UserError(
                f"{images} images in batches of {batch_size}: one of them has {smallest}, for {self.size} devices. "
                "Give another training.batch_size, set training.drop_last, or take fewer devices"
            )

    def weight(self, total: int) -> float:
        """What the mean over its share counts, where the gradients of all processes are averaged."""
        rows = self.rows(total)
        return (rows.stop - rows.start) * self.size / total

    def summed(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Over all processes; the given ones stay."""
        if self.size == 1:
            return values
        found = {name: value.detach().clone() for name, value in values.items()}
        for value in found.values():
            dist.all_reduce(value)
        return found

    def gathered(self, values: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """Those of every process, by its rank."""
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
        """Overwrites tensors by those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def gather_rows(self, values: Tensor, total: int) -> Tensor:
        """Puts the rows of all processes together, in the order of the batch; gradients flow back to each process.

        Args:
            values: this process's rows, [B, ...].
            total: number of rows of all processes.
        """
        if self.size == 1:
            return values
        shards = [Group(rank, self.size).rows(total) for rank in range(self.size)]
        longest = max(shard.stop - shard.start for shard in shards)
        padded = torch.cat([values, values.new_zeros(longest - len(values), *values.shape[1:])])
        gather = all_gather if values.requires_grad else _all_gather_without_gradient
        parts = gather(padded.contiguous())
        return torch.cat([part[: shard.stop - shard.start] for part, shard in zip(parts, shards, strict=True)])

    def first(self, value: Any) -> Any:
        """What the first process has."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def _all_gather_without_gradient(values: Tensor) -> list[Tensor]:
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values)
    return parts


def joined(device: torch.device) -> Group:
    """The group that torchrun started this process in; of one where it did not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Group()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(dist.get_rank(), dist.get_world_size())


def start(processes: int) -> None:
    """Puts torchrun with so many processes in this one's place, each of which starts the same command."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    os.execv(sys.executable, [*command, "-m", "robust_distillation.cli", *sys.argv[1:]])


def started() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """In training mode statistics are those of the whole batch. torch.nn.SyncBatchNorm does the same, but on GPUs
    alone, so that nobody could test it without two."""

    def forward(self, x: Tensor) -> Tensor:
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
    """The same model with the same parameters and buffers, whose batch norm is that of all processes."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronisedBatchNorm2d
    return model
