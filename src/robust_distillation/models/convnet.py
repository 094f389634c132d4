"""A plain convolutional network for small images.

It has stages of 3x3 convolutions with batch norm and ReLU, followed by global average pooling and a linear layer. Each
stage after the first halves the resolution and doubles the width.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Plain convolutional network for small images: maps images [N,C,H,W] in [0, 1] to logits [N,K].

    It has `stages` stages of `depth` layers each: 3x3 convolution (padding 1, no bias), batch norm, ReLU. The first
    stage has `width` channels and stride 1. In every further stage the first convolution has stride 2 and twice as many
    channels. Global average pooling over H and W and a linear layer follow. Images may have any size.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
        stem: the convolutions of all stages, with their batch norm and ReLU.
        classifier: the linear layer from features to logits.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, width: int, stages: int, depth: int):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            width: channels of the first stage.
            stages: number of stages.
            depth: convolutions in each stage.
        """
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
        """Computes features [N, width * 2^(stages - 1)] of images `x` [N,C,H,W]."""
        return self.stem(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(shape: tuple[int, int, int], classes: int, *, width: int = 16, stages: int = 2, depth: int = 2) -> ConvNet:
    """Builds a plain convolutional network with freshly drawn weights, in train mode.

    Each stage is a sequence of 3x3 convolutions with batch norm and ReLU. Global average pooling and a linear layer
    follow the last stage. Images may have any size.

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        width: channels of the first stage. Each further stage has twice as many.
        stages: number of stages. Each stage after the first halves the resolution.
        depth: convolutions in each stage.

    Returns:
        The network, which maps images [N,C,H,W] in [0, 1] to logits [N,K].
    """
    return ConvNet(shape[0], classes, width, stages, depth)
