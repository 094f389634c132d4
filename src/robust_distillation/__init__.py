"""Reproduction of papers on adversarial robustness distillation, from raw data to the comparison table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__version__ = "0.1.0"
__all__ = ["load_dataset", "load_model"]


def load_model(path: str) -> torch.nn.Module:
    """Loads the model of a checkpoint that this package wrote.

    Args:
        path: path of a checkpoint, such as `results/digits/students/wide/small/rslad/seed-0/best.safetensors`.

    Returns:
        A module in eval mode on the CPU. It maps images [N,C,H,W] in [0,1] to logits [N,K]. If the network was trained
        on normalised images, the module normalises them first.

    Raises:
        UserError: if the file is missing or damaged, was not written by this package, or if its weights do not fit the
            architecture in its metadata.
    """
    from robust_distillation.models.checkpoint import load_model

    return load_model(path)


def load_dataset(
    name: str, split: str, folder: str = "data", size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loads a whole split of a dataset. Downloads the dataset's files if they are missing.

    Args:
        name: name of a dataset: "cifar10", "cifar100", "svhn", "stl10", "fashion_mnist", "digits", "digits_parity",
            "image_folder" (your own images), or one that another package registers.
        split: "train", "validation" or "test".
        folder: folder of the dataset's files.
        size: side in pixels to which all images are resized, or None to keep their size.

    Returns:
        Images float32 [N,C,H,W] in [0,1] and labels int64 [N], on the CPU.

    Raises:
        UserError: if the name or the split is unknown, if a download fails, or if a file is broken or has the wrong
            checksum.
    """
    from robust_distillation.data.dataset import load
    from robust_distillation.data.info import DataOptions

    dataset = load(name, split, DataOptions(folder, size))
    return dataset.floats(), dataset.labels
