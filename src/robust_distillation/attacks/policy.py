"""Settings of a model augmentation: random transformations of the images on which a surrogate network is attacked.

The default is a policy that AutoMA (Yuan et al., "AutoMA: Towards Automatic Model Augmentation for Transferable
Adversarial Attacks", IEEE TMM 2023) found by its search, as it stands in the authors' code (HaojieYuan/autoAdv,
benchmark/attacks/TI/autoaug_op3_avg.txt). See `attacks.augmented`, which applies it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from robust_distillation.settings import Settings


class Operation(Settings):
    """A random transformation of an image, with pixels in [0,1]. Pixels from outside of the image are 0.5, a grey.

    The strength m is uniform on {0, ..., range - 1}, and every image has its own, as all other random numbers.

    Attributes:
        name: `resize_padding`: both sides shrink by 2 (1 + m % of the side) pixels, and the image is put at a random
            place on grey. `translation`: a shift by 2 m % of the side, up or down and left or right. `rotation`: by 3 m
            degrees about the centre, to either side. `gaussian_noise`: plus m/60 times a standard normal number for
            each pixel, cut off at 0 and 1. `horizontal_flip`, `vertical_flip`: mirrored. `scaling`: the difference from
            grey is multiplied by 1 - m/10. `invert`: 1 - x. `solarize`: pixels above 1 - 0.09 m become 1 - x.
        probability: probability in [0,1] that an image is transformed.
        range: number of strengths, 1 to 10. Flips and `invert` have no strength.
    """

    name: Literal[
        "resize_padding", "translation", "rotation", "gaussian_noise", "horizontal_flip", "vertical_flip", "scaling",
        "invert", "solarize",
    ]  # fmt: skip
    probability: float = Field(1.0, ge=0, le=1)
    range: int = Field(1, ge=1, le=10)


class Branch(Settings):
    """One transformed copy of each image: operations that are applied one after another.

    Attributes:
        weight: positive; the gradients of the copies are averaged with their weights, divided by the sum of all.
        operations: the operations in their order. Empty, the default: the copy is the image itself.
    """

    weight: float = Field(1.0, gt=0)
    operations: list[Operation] = Field([])


def _branch(*operations: tuple[str, float, int]) -> Branch:
    return Branch(operations=[Operation(name=name, probability=p, range=range) for name, p, range in operations])


AUTOMA = [  # of the released numbers, type and range as they are, the probability in tenths; the weights are equal
    _branch(("scaling", 0.9, 6), ("rotation", 0.2, 7), ("resize_padding", 0.8, 8)),
    _branch(("resize_padding", 0.4, 3), ("solarize", 0.0, 2), ("rotation", 0.0, 4)),
    _branch(("resize_padding", 0.8, 4), ("horizontal_flip", 0.6, 2), ("solarize", 0.2, 1)),
]


class ModelAugmentation(Settings):
    """Transformed copies of the images, over which the attacks `transfer_augmented_NAME` average their gradients.

    It is `evaluation.model_augmentation` in an experiment file.

    Attributes:
        branches: the transformations, one random copy of each image per branch. The default is AutoMA's policy.
        copies: number of copies of each branch, each with random numbers of its own.
    """

    branches: list[Branch] = Field(AUTOMA, min_length=1)
    copies: int = Field(1, ge=1, le=100)

    @property
    def all_copies(self) -> list[Branch]:
        """The branch of each copy of an image, in the order in which the copies are made."""
        return self.branches * self.copies

    def describe(self) -> str:
        """Returns a sentence on the augmentation for captions."""
        names = sorted({operation.name for branch in self.branches for operation in branch.operations})
        policy = (
            "AutoMA-style: its released policy" if self.branches == AUTOMA else ", ".join(names) or "no transformation"
        )
        count = len(self.all_copies)
        copies = "a randomly transformed copy" if count == 1 else f"{count} randomly transformed copies"
        return f"transfer augmented: in each step the surrogate's gradient is the mean over {copies} ({policy})."
