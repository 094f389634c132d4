"""DeepMind's wide residual networks (Gowal et al., arXiv 2010.03593): WRN-depth-width with Swish, depth = 6n + 4.

Names, padding and initialisation (torch's default) are those of DeepMind's PyTorch code (google-deepmind/
deepmind-research, adversarial_robustness/pytorch/model_zoo.py), which RobustBench shares. A convolution of stride 2
pads like TensorFlow's SAME: for even sizes only to the right and below. So this is not `wide_resnet` with another
activation.

The published networks normalise images inside the model. Here `models.normalised.Normalised` does it, with
    CIFAR-10   mean (0.4914, 0.4822, 0.4465), std (0.2471, 0.2435, 0.2616)
    CIFAR-100  mean (0.5071, 0.4865, 0.4409), std (0.2673, 0.2564, 0.2762)
DeepMind and RobustBench evaluate the CIFAR-100 checkpoints with the second line; RSLAD's code uses the first one for
its CIFAR-100 teacher. DeepMind's files contain no `mean` and `std`; state dicts saved from RobustBench's class do.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


def _pad_same(x: Tensor) -> Tensor:
    """Pads [N,C,H,W] like TensorFlow's SAME for a 3x3 convolution of stride 2.

    The output of the convolution then has half the size, rounded up.
    """
    height, width = x.shape[2:]
    return F.pad(x, (width % 2, 1, height % 2, 1))


class Block(nn.Module):
    """Pre-activation residual block: batch norm, Swish, 3x3 convolution, batch norm, Swish, 3x3 convolution, plus a
    shortcut.

    The shortcut is the identity or, if the number of channels changes, a 1x1 convolution of the block's input after
    batch norm and Swish. A convolution of stride 2 pads like TensorFlow's SAME (for even sizes only to the right and
    below).
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        """Creates the block.

        Args:
            inputs: channels of the input.
            outputs: channels of the output.
            stride: stride of the first convolution, 1 or 2.
        """
        super().__init__()
        self.halves = stride == 2
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, 0 if self.halves else 1, bias=False)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        active = F.silu(self.batchnorm_0(x))
        y = self.conv_0(_pad_same(active) if self.halves else active)
        y = self.conv_1(F.silu(self.batchnorm_1(y)))
        return y + (x if self.shortcut is None else self.shortcut(active))


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
        self.block = nn.Sequential(
            Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(count - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Computes the output [N, outputs, H / stride, W / stride] of activations `x` [N, inputs, H, W]."""
        return self.block(x)


class DMWideResNet(nn.Module):
    """DeepMind's wide residual network with Swish, WRN-depth-width: maps normalised images [N,C,H,W] to logits [N,K].

    A 3x3 convolution to 16 channels, three stages of (depth - 4) / 6 pre-activation blocks with 16, 32 and 64 times
    `width` channels and strides 1, 2 and 2, batch norm, Swish, global average pooling, and a linear layer. Images may
    have any size.

    Attributes:
        foldable: class constant, True: batch norm may be folded into the convolutions for inference.
    """

    foldable = True

    def __init__(self, channels: int, classes: int, depth: int, width: int):
        """Creates the network with torch's default initialisation.

        Args:
            channels: number of image channels.
            classes: number of classes.
            depth: number of layers with weights, 6n + 4.
            width: the widening factor k.
        """
        super().__init__()
        count = (depth - 4) // 6
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.init_conv = nn.Conv2d(channels, sizes[0], 3, 1, 1, bias=False)
        self.layer = nn.Sequential(
            Stage(count, sizes[0], sizes[1], 1),
            Stage(count, sizes[1], sizes[2], 2),
            Stage(count, sizes[2], sizes[3], 2),
        )
        self.batchnorm = nn.BatchNorm2d(sizes[3])
        self.logits = nn.Linear(sizes[3], classes)

    @property
    def classifier(self) -> nn.Linear:
        """The last linear layer, from features to logits; DeepMind's name for it is `logits`."""
        return self.logits

    def features(self, x: Tensor) -> Tensor:
        """Computes features [N, 64 * width] of normalised images `x` [N,C,H,W]."""
        x = F.silu(self.batchnorm(self.layer(self.init_conv(x))))
        return F.avg_pool2d(x, x.shape[2:]).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Computes logits [N,K] of normalised images `x` [N,C,H,W]."""
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int],
    classes: int,
    *,
    depth: Literal[10, 16, 22, 28, 34, 40, 46, 52, 58, 64, 70, 94, 106] = 70,
    width: int = 16,
) -> DMWideResNet:
    """Builds DeepMind's WRN-depth-width with Swish (Gowal et al., arXiv 2010.03593), with freshly drawn weights, in
    train mode.

    The layers are a 3x3 convolution to 16 channels, three stages of (depth - 4) / 6 pre-activation blocks with strides
    1, 2 and 2, batch norm, Swish, global average pooling, and a linear layer. The network expects normalised images:
    `models.normalised.Normalised` applies it to images in [0, 1].

    Args:
        shape: (C, H, W) of the images; only C is used.
        classes: number of classes K.
        depth: number of layers with weights, 6n + 4.
        width: the widening factor k of WRN-depth-k. The three stages have 16k, 32k and 64k channels.

    Returns:
        The network, which maps normalised images [N,C,H,W] to logits [N,K].
    """
    return DMWideResNet(shape[0], classes, depth, width)
