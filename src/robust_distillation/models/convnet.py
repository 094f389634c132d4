"""A plain convolutional network for small images: stages of 3x3 convolutions with batch norm, each stage but the first
halving the resolution and doubling the width, then global average pooling."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    foldable = True

    def __init__(self, channels: int, classes: int, width: int, stages: int, depth: int):
        super().__init__()
        layers: list[nn.Module] = []
        for stage in range(stages):
            out = width * 2**stage
            for layer in range(depth):
                stride = 2 if stage > 0 and layer == 0 else 1
                layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
        self.stem = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def features(self, x: Tensor) -> Tensor:
        return self.stem(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def build(shape: tuple[int, int, int], classes: int, *, width: int = 16, stages: int = 2, depth: int = 2) -> ConvNet:
    return ConvNet(shape[0], classes, width, stages, depth)
