"""Crafts attacks with a gradient that is averaged over transformed copies of the images, to transfer better.

The network's gradient at an image x is replaced by that of the weighted mean of the losses on n random copies T_1(x),
..., T_n(x), drawn anew in each step. Transformations that keep the class act like further networks to attack: hence
"model augmentation". AutoMA (Yuan et al., IEEE TMM 2023) searches the transformations; `attacks.policy` has what it
found.

This works with every attack that does nothing but move each image by the gradient of a sum of losses of the images. The
attack gets the batch n times over and calls a network that transforms the first of these n copies in n ways. It returns
one row of logits for each image and transformation, and the gradient of all losses flows into the first copy. The
gradient in the others is 0, and they are dropped at the end.

Of AutoMA the authors' code was read (HaojieYuan/autoAdv), not the paper. Ours is AutoMA-style:

- The released attack draws once for a batch (of 3 images) and branch, ours for each image. It moves images away from
  the predicted class, ours from the true one.
- Its rotation is by m times pi, half turns. Ours is by 3 m degrees, as in the search, by which the policy was found.
- Its Gaussian noise is uniform in [0, m/60], and its `invert` leaves the range of pixels. Ours are those of the search.
- In the search, outside of an image is black, ours is grey, as in the released attack. Its solarize never changes a
  pixel, ours is that of the released attack. `equalize` has no gradient and is left out, as in the released attack.
- In the stored version of the search, strengths go further than in the released attack. Ours are those of the attack.
- The policy was searched on ImageNet images of 299 pixels. How well it suits images of 32 pixels is not known, nor
  which of the released policies made which number of the paper.
- The search by reinforcement learning is not reproduced.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from robust_distillation.attacks.policy import Branch, ModelAugmentation
from robust_distillation.augmentations.draws import Draws
from robust_distillation.device import to_device
from robust_distillation.randomness import derived_seed, generator
from robust_distillation.settings import ThreatModel

GREY = 0.5  # of pixels from outside of the image
Attack = Callable[[nn.Module, Tensor, Tensor, ThreatModel, int], Tensor]


def attack_augmented(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    seed: int,
    augmentation: ModelAugmentation,
) -> Tensor:
    """Attacks with gradients that are averaged over transformed copies of the images.

    Args:
        attack: function `attack` of a registered attack whose module says `AUGMENTABLE = True`.
        model: network to attack; maps images [N,C,H,W] in [0,1] to logits [N,K].
        x: clean images, float [N,C,H,W] in [0,1], on the device of the model.
        labels: true classes, int64 [N], on the same device.
        threat: norm (`linf` or `l2`) and maximum size `eps` of the perturbation, in units of pixels in [0,1], such as
            8/255.
        seed: seed of the attack, from which the random numbers of the transformations follow, too.
        augmentation: the transformations.

    Returns:
        Adversarial images x', [N,C,H,W] in [0,1], each within `threat.eps` of its x.
    """
    count = len(augmentation.all_copies)
    copied = AugmentedModel(model, augmentation, seed)
    return attack(copied, x.repeat(count, 1, 1, 1), labels.repeat(count), threat, seed)[: len(x)].clone()


class AugmentedModel(nn.Module):
    """A network that is asked about transformed copies of images, drawn anew in each forward pass."""

    def __init__(self, model: nn.Module, augmentation: ModelAugmentation, seed: int):
        """Keeps the network and the transformations.

        Args:
            model: network that maps images [N,C,H,W] to logits [N,K]. Its modes are those of this module.
            augmentation: the n copies of an image that are made, with their weights.
            seed: seed of the random numbers. They depend on it and on the number of the forward pass, and for each
                image (but for Gaussian noise) on its position in the batch, not on other images.
        """
        super().__init__()
        self.model, self.seed, self.passes = model, seed, 0
        self.copies = augmentation.all_copies
        total = sum(branch.weight for branch in self.copies)
        self.weights = [branch.weight / total for branch in self.copies]
        self.train(model.training)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the logits of n transformed copies of the first B images.

        A gradient that flows back into the logits of copy i is multiplied by its weight w_i. So the gradient of a sum
        of losses of the rows is that of the weighted mean over the copies, in the first B images.

        Args:
            x: n copies of a batch of B images in [0,1], [n B,C,H,W]. Only the first is used.

        Returns:
            The logits [n B,K], those of the first copy first.
        """
        images = x[: len(x) // len(self.copies)]
        parts = [
            transformed(images, branch, derived_seed(self.seed, "model augmentation", self.passes, copy))
            for copy, branch in enumerate(self.copies)
        ]
        self.passes += 1
        logits = self.model(torch.cat(parts))
        if logits.requires_grad:
            weights = logits.new_tensor(self.weights).repeat_interleave(len(images))[:, None]
            logits.register_hook(lambda gradient: gradient * weights)
        return logits


def transformed(images: Tensor, branch: Branch, seed: int) -> Tensor:
    """Applies the random operations of a branch to each image, one after another.

    The gradient flows through every operation. Where an operation moves pixels, it takes the nearest one.

    Args:
        images: float [B,C,H,W] in [0,1]; not modified.
        branch: the operations.
        seed: seed of the random numbers.

    Returns:
        New images [B,C,H,W] in [0,1].
    """
    for place, operation in enumerate(branch.operations):
        own = derived_seed(seed, place)
        draws = Draws(own, np.zeros(len(images), np.int64), np.arange(len(images)))
        chosen, strengths = draws.coin(operation.probability), draws.integers(0, operation.range)
        changed = OPERATIONS[operation.name](images, strengths, draws, own)
        images = torch.where(_column(chosen, images), changed, images)
    return images


def _column(values: np.ndarray, images: Tensor) -> Tensor:
    """Turns one number per image, [B], into a tensor [B,1,1,1] on the device of the images."""
    return to_device(torch.from_numpy(values), images.device)[:, None, None, None]


def _taken(images: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """Takes for each pixel of the result the pixel of its image at a row and a column, grey where there is none.

    Args:
        images: [B,C,H,W].
        rows: int64, [B,H,W] or of a shape that broadcasts to it.
        columns: the same.
    """
    height, width = images.shape[-2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    pixels = np.where(inside, rows * width + columns, height * width).reshape(len(images), 1, height * width)
    framed = torch.nn.functional.pad(images.flatten(2), [0, 1], value=GREY)
    index = to_device(torch.from_numpy(pixels), images.device).expand(-1, images.shape[1], -1)
    return framed.gather(2, index).view_as(images)


def _resize_padding(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    positions = []
    for side in images.shape[-2:]:
        lost = np.minimum(2 * (1 + strengths * side // 100), side - 1)
        offset = np.arange(side) - draws.integers(0, np.maximum(lost, 1))[:, None]
        kept = (side - lost)[:, None]
        positions.append(np.where((offset >= 0) & (offset < kept), offset * side // kept, -1))
    return _taken(images, positions[0][:, :, None], positions[1][:, None, :])


def _translation(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    rows, columns = (
        np.arange(side) - (np.where(draws.coin(), -1, 1) * (strengths * side // 50))[:, None]
        for side in images.shape[-2:]
    )
    return _taken(images, rows[:, :, None], columns[:, None, :])


def _rotation(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    angles = np.radians(3.0 * strengths * np.where(draws.coin(), -1, 1))[:, None, None]
    down, right = ((side - 1) / 2 for side in images.shape[-2:])
    rows = np.arange(images.shape[-2])[:, None] - down
    columns = np.arange(images.shape[-1])[None, :] - right
    sine, cosine = np.sin(angles), np.cos(angles)
    return _taken(
        images,
        np.rint(cosine * rows - sine * columns + down).astype(np.int64),
        np.rint(sine * rows + cosine * columns + right).astype(np.int64),
    )


def _gaussian_noise(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    noise = torch.randn(images.shape, generator=generator(seed, "noise"))
    size = _column(strengths, images).to(images.dtype) / 60
    return (images + size * to_device(noise, images.device).to(images.dtype)).clamp(0, 1)


def _scaling(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    return GREY + (images - GREY) * (1 - 0.1 * _column(strengths, images).to(images.dtype))


def _solarize(images: Tensor, strengths: np.ndarray, draws: Draws, seed: int) -> Tensor:
    threshold = 1 - 0.09 * _column(strengths, images).to(images.dtype)
    return torch.where(images > threshold, 1 - images, images)


OPERATIONS: dict[str, Callable[[Tensor, np.ndarray, Draws, int], Tensor]] = {
    "resize_padding": _resize_padding,
    "translation": _translation,
    "rotation": _rotation,
    "gaussian_noise": _gaussian_noise,
    "horizontal_flip": lambda images, *_: images.flip(3),
    "vertical_flip": lambda images, *_: images.flip(2),
    "scaling": _scaling,
    "invert": lambda images, *_: 1 - images,
    "solarize": _solarize,
}
