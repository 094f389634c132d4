"""Thin residual networks for CIFAR (He et al., CVPR 2016, section 4.2): ResNet-20 to ResNet-110, depth = 6n + 2.

They have three stages of 16, 32 and 64 channels, so ResNet-56 has less than a tenth of the weights of `resnet` with
depth 18. MTARD's naturally trained teacher for CIFAR-10 is such a ResNet-56. Names, initialisation and shortcuts are
those of chenyaofo/pytorch-cifar-models, from which MTARD took its class: where a stage begins, the shortcut is a 1x1
convolution with batch norm, and not He et al.'s zero padding. Images are not normalised; the files that pytorch-cifar-
models publishes expect normalised ones.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Residual block: 3x3 convolution, batch norm, ReLU, 3x3 convolution, batch norm, plus a shortcut, then ReLU.

    The shortcut is the identity or, if stride or number of channels change, a 1x1 convolution with batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first convolution, 1 or 2.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class CifarResNet(nn.Module):
    """Thin residual network for CIFAR: maps images [N,C,H,W] in [0, 1] to logits [N,K].

    A 3x3 convolution with batch norm and ReLU; three stages of (depth - 2) / 6 residual blocks with 1, 2 and 4 times
    `width` channels and strides 1, 2 and 2; global average pooling; a linear layer. Images may have any size.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, depth: int, width: int):
        """Creates the network; convolutions start from a normal distribution of variance 2 / (9 x output channels).

        Args:
            channels: number of image channels.
            classes: number of classes.
            depth: number of layers with weights, 6n + 2.
            width: channels of the stem and the first stage.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage in range(3):
            blocks = []
            for index in range((depth - 2) // 6):
                blocks.append(Block(inputs, width * 2**stage, 2 if stage > 0 and index == 0 else 1))
                inputs = width * 2**stage
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits."""
        return self.fc

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 4 * width] of images `x` [N,C,H,W]."""
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x)))
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int], classes: int, *, depth: Literal[20, 32, 44, 56, 110] = 56, width: int = 16
) -> CifarResNet:
    """Builds a thin ResNet for CIFAR (three stages, depth 6n + 2) with freshly drawn weights, in train mode.

    The layers are a 3x3 convolution, three stages of (depth - 2) / 6 residual blocks with strides 1, 2 and 2, global
    average pooling and a linear layer.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        depth: number of layers with weights, 6n + 2; the shortcuts are not counted.
        width: channels of the stem and the first stage, 16 in the paper. Each further stage has twice as many.

    Returns:
        The network, which maps images [N,C,H,W] in [0, 1] to logits [N,K].
    """
    return CifarResNet(shape[0], classes, depth, width)
