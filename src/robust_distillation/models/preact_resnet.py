"""PreActResNet-18 (He et al., ECCV 2016): a residual network with batch norm and ReLU before each convolution.

This is the variant for CIFAR, with the names of kuangliu/pytorch-cifar and torch's default initialisation. The
published codes share those names and differ in two arguments. `final_bn` can be recognised from a state dict,
`shortcut` cannot:
    shortcut   final_bn  code
    activated  yes       Rice et al. 2020, AWP; in RobustBench PreActBlockV2 with bn_before_fc (Rice, Kireev, Addepalli)
    raw        yes       Wong et al. 2020, their own file
    raw        no        RobustBench's PreActBlock (Wong, Andriushchenko)
    activated  no        kuangliu/pytorch-cifar
The networks of Rice, Wong and Kireev expect normalised images, on CIFAR-10 with mean (0.4914, 0.4822, 0.4465) and std
(0.2471, 0.2435, 0.2616). Wrap them in `models.normalised.Normalised` for that.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Pre-activation residual block: batch norm, ReLU, 3x3 convolution, batch norm, ReLU, 3x3 convolution, plus a
    shortcut.

    The shortcut is the identity or, if stride or number of channels change, a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: str):
        """Creates the block.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first convolution, 1 or 2.
            shortcut: input of the 1x1 convolution of the shortcut: "activated" for the block's input after batch norm
                and ReLU, "raw" for the block's input. Without a change of shape the shortcut is the identity.
        """
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False))
        self.raw = shortcut == "raw"

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        active = self.bn1(x).relu()
        y = self.conv2(self.bn2(self.conv1(active)).relu())
        return y + (x if self.shortcut is None else self.shortcut(x if self.raw else active))


class PreActResNet18(nn.Module):
    """PreActResNet-18 for CIFAR: maps images [N,C,H,W] to logits [N,K].

    A 3x3 convolution of stride 1; four stages of two pre-activation blocks with 1, 2, 4 and 8 times `width` channels
    and strides 1, 2, 2 and 2; batch norm and ReLU if `final_bn`; global average pooling; a linear layer. Images may
    have any size. Whether they must be normalised depends on the weights: some published checkpoints expect it.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, width: int, shortcut: str, final_bn: bool):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            width: channels of the stem and the first stage.
            shortcut: input of the 1x1 convolutions of the shortcuts: "activated" for the block's input after batch norm
                and ReLU, "raw" for the block's input.
            final_bn: True if batch norm and ReLU follow the last block.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        sizes = [width, width, 2 * width, 4 * width, 8 * width]
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(PreActBlock(before, size, stride, shortcut), PreActBlock(size, size, 1, shortcut))
            for before, size, stride in zip(sizes, sizes[1:], (1, 2, 2, 2), strict=False)
        )
        self.bn = nn.BatchNorm2d(sizes[-1]) if final_bn else None
        self.linear = nn.Linear(sizes[-1], classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.linear

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 8 * width] of images `x` [N,C,H,W]."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        if self.bn is not None:
            x = self.bn(x).relu()
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int],
    classes: int,
    *,
    width: int = 64,
    shortcut: Literal["activated", "raw"] = "activated",
    final_bn: Literal[True, False] = True,
) -> PreActResNet18:
    """Builds a PreActResNet-18 for CIFAR with freshly drawn weights, in train mode.

    The layers are a 3x3 convolution of stride 1, four stages of two pre-activation blocks with strides 1, 2, 2 and 2,
    global average pooling and a linear layer.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        width: channels of the first convolution and the first stage, 64 in the paper. Each further stage has twice as
            many.
        shortcut: input of the 1x1 convolutions of the shortcuts: "activated" for the block's input after batch norm and
            ReLU, "raw" for the block's input. Published checkpoints differ in it.
        final_bn: True if batch norm and ReLU follow the last block. Published checkpoints differ in it.

    Returns:
        The network, which maps images [N,C,H,W] to logits [N,K].
    """
    return PreActResNet18(shape[0], classes, width, shortcut, final_bn)
