"""Residual networks (He et al., CVPR 2016) in the variant for CIFAR that RSLAD, ARD and most robust training use.

The stem is a 3x3 convolution of stride 1 without max-pooling. Four stages and average pooling follow. Names, layers and
initialisation (torch's default) are those of kuangliu/pytorch-cifar, so state dicts of that family can be loaded
unchanged. Images are not normalised.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Returns the identity or, if the shape changes, a 1x1 convolution with batch norm."""
    if stride == 1 and inputs == outputs:
        return nn.Sequential()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Residual block: 3x3 convolution, batch norm, ReLU, 3x3 convolution, batch norm, plus a shortcut, then ReLU.

    The shortcut is the identity or, if stride or number of channels change, a 1x1 convolution with batch norm.

    Attributes:
        expansion: class constant: channels of the output divided by `width`, 1.
    """

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            width: channels of the 3x3 convolutions.
            stride: stride of the block, 1 or 2.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, width, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + self.shortcut(x)).relu()


class Bottleneck(nn.Module):
    """Residual block of a 1x1, a 3x3 and a 1x1 convolution, each with batch norm, plus a shortcut, then ReLU.

    ReLU follows the first two convolutions too. The output has four times `width` channels. The shortcut is the
    identity or, if stride or number of channels change, a 1x1 convolution with batch norm.

    Attributes:
        expansion: class constant: channels of the output divided by `width`, 4.
    """

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            width: channels of the 3x3 convolutions.
            stride: stride of the block, 1 or 2.
        """
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, 4 * width, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + self.shortcut(x)).relu()


# Depth to the type of block and the number of blocks in each stage.
LAYOUTS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3))}


class ResNet(nn.Module):
    """Residual network for CIFAR: maps images [N,C,H,W] in [0, 1] to logits [N,K].

    A 3x3 convolution of stride 1 with batch norm and ReLU, without max-pooling; four stages of residual blocks with
    strides 1, 2, 2 and 2; global average pooling; a linear layer. The 3x3 convolutions of the stages have 1, 2, 4 and 8
    times `width` channels. Depths 18 and 34 have basic blocks (two 3x3 convolutions), depth 50 has bottlenecks (1x1,
    3x3, 1x1). Images may have any size; 32x32 pixels become 4x4 before pooling.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, depth: int, width: int):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            depth: 18, 34 or 50.
            width: channels of the stem and the first stage.
        """
        super().__init__()
        block, counts = LAYOUTS[depth]
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs, stages = width, []
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                blocks.append(block(inputs, width * 2**stage, 2 if stage > 0 and index == 0 else 1))
                inputs = width * 2**stage * block.expansion
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inputs, classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.linear

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 8 * width] of images `x` [N,C,H,W]; [N, 32 * width] for depth 50."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(shape: tuple[int, int, int], classes: int, *, depth: Literal[18, 34, 50] = 18, width: int = 64) -> ResNet:
    """Builds a ResNet for CIFAR (no stride and no max-pooling in the stem) with freshly drawn weights, in train mode.

    The layers are a 3x3 convolution, four stages of residual blocks with strides 1, 2, 2 and 2, global average pooling
    and a linear layer. Depths 18 and 34 have basic blocks, depth 50 has bottlenecks.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        depth: number of layers with weights: 18, 34 or 50.
        width: channels of the stem and the first stage, 64 in the paper. Each further stage has twice as many.

    Returns:
        The network, which maps images [N,C,H,W] in [0, 1] to logits [N,K].
    """
    return ResNet(shape[0], classes, depth, width)
