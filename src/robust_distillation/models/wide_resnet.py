"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016) in the variant that adversarial training uses on CIFAR.

A WRN-depth-width has pre-activation blocks, and depth = 6n + 4. Names and initialisation are those of TRADES
(yaodongyu/TRADES), which RSLAD, ARD and most of RobustBench share. The checkpoint of TRADES also contains `sub_block1`,
a copy of the first stage that no forward pass uses: drop its keys to load the rest. Images are not normalised.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-activation residual block: batch norm, ReLU, 3x3 convolution, batch norm, ReLU, 3x3 convolution, plus a
    shortcut.

    The shortcut is the identity or, if the number of channels changes, a 1x1 convolution of the block's input after
    batch norm and ReLU.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first convolution, 1 or 2.
        """
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.convShortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        active = self.bn1(x).relu()
        y = self.conv2(self.bn2(self.conv1(active)).relu())
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class Stage(nn.Module):
    """Sequence of residual blocks with the same number of output channels. The first block may halve the resolution."""

    def __init__(self, count: int, inputs: int, outputs: int, stride: int):
        """Creates the stage.

        Args:
            count: number of blocks.
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first block, 1 or 2.
        """
        super().__init__()
        self.layer = nn.Sequential(
            Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(count - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        return self.layer(x)


class WideResNet(nn.Module):
    """Wide residual network WRN-depth-width: maps images [N,C,H,W] in [0, 1] to logits [N,K].

    A 3x3 convolution to 16 channels; three stages of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times
    `width` channels and strides 1, 2 and 2; batch norm, ReLU, global average pooling; a linear layer. Images may have
    any size; 32x32 pixels become 8x8 before pooling.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, depth: int, width: int):
        """Creates the network with TRADES' initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            depth: number of layers with weights, 6n + 4.
            width: the widening factor k.
        """
        super().__init__()
        count = (depth - 4) // 6
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(channels, sizes[0], 3, 1, 1, bias=False)
        self.block1 = Stage(count, sizes[0], sizes[1], 1)
        self.block2 = Stage(count, sizes[1], sizes[2], 2)
        self.block3 = Stage(count, sizes[2], sizes[3], 2)
        self.bn1 = nn.BatchNorm2d(sizes[3])
        self.fc = nn.Linear(sizes[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # normal distribution with variance 2 / (kernel area x output channels)
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.fc

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 64 * width] of images `x` [N,C,H,W]."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = self.bn1(x).relu()
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int],
    classes: int,
    *,
    depth: Literal[10, 16, 22, 28, 34, 40, 46, 52, 58, 64, 70] = 34,
    width: int = 10,
) -> WideResNet:
    """Builds a wide residual network WRN-depth-width, as TRADES trains it, with freshly drawn weights, in train mode.

    The layers are a 3x3 convolution to 16 channels, three stages of (depth - 4) / 6 pre-activation blocks with strides
    1, 2 and 2, batch norm, ReLU, global average pooling and a linear layer.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        depth: number of layers with weights, 6n + 4.
        width: the widening factor k of WRN-depth-k. The three stages have 16k, 32k and 64k channels.

    Returns:
        The network, which maps images [N,C,H,W] in [0, 1] to logits [N,K].
    """
    return WideResNet(shape[0], classes, depth, width)
