"""MobileNetV2 (Sandler et al., CVPR 2018) as RSLAD and ARD use it on CIFAR, with the names, the layout and the default
initialisation of kuangliu/pytorch-cifar: stem and second stage of stride 1, ReLU instead of ReLU6, a residual
connection around every block of stride 1, by a 1x1 convolution where the channels differ. No normalisation: images in
[0,1]."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

STEM = 32
STAGES = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
LAST = 1280
# Of each stage: expansion, channels, blocks, stride of the first one. Channels are for a stem of STEM.


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int):
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
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return y if self.shortcut is None else y + self.shortcut(x)


class MobileNetV2(nn.Module):
    foldable = True

    def __init__(self, channels: int, classes: int, width: int):
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
        return self.linear

    def features(self, x: Tensor) -> Tensor:
        """Images [N,C,H,W] to features [N, 40 width]."""
        x = self.layers(self.bn1(self.conv1(x)).relu())
        x = self.bn2(self.conv2(x)).relu()
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int], classes: int, *, width: Literal[4, 8, 12, 16, 20, 24, 28, 32, 48, 64] = 32
) -> MobileNetV2:
    """width: channels of the stem, with which all others scale; 32 is the published one. It must be a multiple of 4,
    or the second stage's channels would not be whole."""
    return MobileNetV2(shape[0], classes, width)
