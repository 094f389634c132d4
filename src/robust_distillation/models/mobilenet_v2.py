"""MobileNetV2 (Sandler et al., CVPR 2018) in the variant for CIFAR that RSLAD and ARD use.

Names, layers and initialisation (torch's default) are those of kuangliu/pytorch-cifar. The stem and the second stage
have stride 1, and ReLU replaces ReLU6. Every block of stride 1 has a residual connection, which is a 1x1 convolution if
the number of channels changes. Images are not normalised.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

# STAGES: expansion, channels, number of blocks and stride of the first block of each stage. The channels are those of a
# network whose stem has STEM channels.
STEM = 32
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LAST = 1280


class Block(nn.Module):
    """Inverted residual block: 1x1 expansion, depthwise 3x3 convolution, 1x1 projection, each followed by batch norm.

    ReLU follows the first two convolutions. A block of stride 1 adds a shortcut: the identity or, if the number of
    channels changes, a 1x1 convolution with batch norm. A block of stride 2 has no shortcut.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            expansion: factor from `inputs` to the channels of the depthwise convolution.
            stride: stride of the depthwise convolution, 1 or 2.
        """
        super().__init__()
        inner = expansion * inputs
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential() if stride == 1 else None
        if stride == 1 and inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return y if self.shortcut is None else y + self.shortcut(x)


class MobileNetV2(nn.Module):
    """MobileNetV2 in the variant for CIFAR: maps images [N,C,H,W] in [0, 1] to logits [N,K].

    A 3x3 convolution of stride 1 with `width` channels; 17 inverted residual blocks in seven stages with strides 1, 1,
    2, 2, 1, 2, 1; a 1x1 convolution to 40 * width channels; global average pooling; a linear layer. Batch norm and ReLU
    follow the first and the last convolution. At the width 32 the stages have 16, 24, 32, 64, 96, 160 and 320 channels.
    Images may have any size; 32x32 pixels become 4x4 before pooling.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, width: int):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            width: channels of the stem, a multiple of 4.
        """
        super().__init__()
        last = LAST * width // STEM
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs, blocks = width, []
        for expansion, size, count, first in STAGES:
            for stride in (first, *[1] * (count - 1)):
                outputs = size * width // STEM
                blocks.append(Block(inputs, outputs, expansion, stride))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(inputs, last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.linear

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 40 * width] of images `x` [N,C,H,W]."""
        x = self.layers(self.bn1(self.conv1(x)).relu())
        x = self.bn2(self.conv2(x)).relu()
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int], classes: int, *, width: Literal[4, 8, 12, 16, 20, 24, 28, 32, 48, 64] = 32
) -> MobileNetV2:
    """Builds a MobileNetV2 in the variant for CIFAR (no stride in the first layers) with freshly drawn weights, in
    train mode.

    The layers are a 3x3 convolution, 17 inverted residual blocks, a 1x1 convolution, global average pooling and a
    linear layer. The resolution is halved three times.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        width: channels of the first convolution, 32 in the paper. All other layers scale with it. It is a multiple of
            4, so that every layer has a whole number of channels.

    Returns:
        The network, which maps images [N,C,H,W] in [0, 1] to logits [N,K].
    """
    return MobileNetV2(shape[0], classes, width)
