"""Wide residual networks (Zagoruyko and Komodakis, BMVC 2016), as adversarial training uses them on CIFAR:
WRN-depth-width with pre-activation blocks, depth = 6n + 4."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu()
        y = self.conv2(self.bn2(self.conv1(active)).relu())
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    def __init__(self, channels: int, classes: int, depth: int, width: int):
        super().__init__()
        blocks = (depth - 4) // 6
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(channels, sizes[0], 3, 1, 1, bias=False)
        self.stages = nn.Sequential(
            *(
                Block(sizes[stage] if block == 0 else out, out, 2 if stage > 0 and block == 0 else 1)
                for stage, out in enumerate(sizes[1:])
                for block in range(blocks)
            )
        )
        self.bn = nn.BatchNorm2d(sizes[3])
        self.classifier = nn.Linear(sizes[3], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.classifier.bias)

    def features(self, x: Tensor) -> Tensor:
        return self.bn(self.stages(self.conv1(x))).relu().mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def build(
    shape: tuple[int, int, int],
    classes: int,
    *,
    depth: Literal[10, 16, 22, 28, 34, 40, 46, 52, 58, 64, 70] = 34,
    width: int = 10,
) -> WideResNet:
    return WideResNet(shape[0], classes, depth, width)
