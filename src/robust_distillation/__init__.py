"""Reproduces papers on adversarial robustness distillation, from nothing to the comparison table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"
__all__ = ["load_dataset", "load_model"]


def load_model(path: str) -> torch.nn.Module:
    """The model in a checkpoint of ours, in eval mode: input [N,C,H,W] in [0,1], output logits [N,K]."""
    from robust_distillation.models.checkpoint import load_model

    return load_model(path)


def load_dataset(
    name: str, split: str, folder: str = "data", size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [N,C,H,W] in [0,1] and labels int64 [N] of a split: train, validation or test.

    Files lie in `folder`, into which missing ones are fetched; `size` resizes every image to size x size.
    """
    from robust_distillation.data.dataset import load
    from robust_distillation.data.info import DataOptions

    dataset = load(name, split, DataOptions(folder, size))
    return dataset.floats(), dataset.labels
