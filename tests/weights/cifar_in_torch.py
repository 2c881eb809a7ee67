"""The networks of the tables of distillation on CIFAR, in torch.

Written for the tests, with the names of tensors of https://github.com/HobbitLong/RepDistiller, which
mdistiller has as well, and of https://github.com/kuangliu/pytorch-cifar.
What imports this needs torch.
"""

import torch
from torch import nn
from torch.nn import functional

SOURCE = "RepDistiller, by its names"
KUANGLIU = "pytorch-cifar, by its names"


def _conv3(arriving: int, width: int, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(arriving, width, 3, stride=stride, padding=1, bias=bias)


class _Basic(nn.Module):
    """Two convolutions, each with a BatchNorm; He et al. 2015, fig. 2."""

    def __init__(self, arriving: int, width: int, stride: int, shortcut: str):
        super().__init__()
        self.conv1, self.bn1 = _conv3(arriving, width, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = _conv3(width, width), nn.BatchNorm2d(width)
        self.around = shortcut
        if stride > 1 or arriving != width:
            projected = nn.Conv2d(arriving, width, 1, stride=stride, bias=False)
            setattr(self, shortcut, nn.Sequential(projected, nn.BatchNorm2d(width)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        shortcut = getattr(self, self.around, None)
        return (y + (x if shortcut is None else shortcut(x))).relu()


class ResNet(nn.Module):
    """Stages `layer1` and on of `blocks` blocks each; its head is `fc` or `linear`."""

    def __init__(
        self,
        stem: int,
        widths: tuple[int, ...],
        blocks: int,
        *,
        classes: int,
        shortcut: str = "downsample",
        head: str = "fc",
    ):
        super().__init__()
        self.conv1, self.bn1 = _conv3(3, stem), nn.BatchNorm2d(stem)
        self.stages, self.head, arriving = len(widths), head, stem
        for stage, width in enumerate(widths):
            layer = []
            for i in range(blocks):
                stride = 2 if stage and i == 0 else 1
                layer.append(_Basic(arriving, width, stride, shortcut))
                arriving = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layer))
        setattr(self, head, nn.Linear(arriving, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


def resnet(depth: int, multiplier: int = 1, **how) -> ResNet:
    """`resnet20` is of 16, 16, 32 and 64 channels, `resnet8x4` of 32, 64, 128 and 256."""
    stem = 16 if multiplier == 1 else 32
    widths = tuple(multiplier * width for width in (16, 32, 64))
    return ResNet(stem, widths, (depth - 2) // 6, **how)


class _Preactivated(nn.Module):
    """BatchNorm and ReLU before each convolution; Zagoruyko and Komodakis 2016, fig. 1c."""

    def __init__(self, arriving: int, width: int, stride: int):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(arriving), _conv3(arriving, width, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(width), _conv3(width, width)
        self.convShortcut = None
        if arriving != width:
            self.convShortcut = nn.Conv2d(arriving, width, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(x).relu()
        shortcut = x if self.convShortcut is None else self.convShortcut(y)
        return shortcut + self.conv2(self.bn2(self.conv1(y)).relu())


class _Stage(nn.Module):
    """Its blocks are `layer`."""

    def __init__(self, *blocks: nn.Module):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-`depth`-`widen`, without dropout."""

    def __init__(self, depth: int, widen: int, *, classes: int):
        super().__init__()
        self.conv1, arriving = _conv3(3, 16), 16
        for stage, width in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
            blocks = []
            for i in range((depth - 4) // 6):
                blocks.append(_Preactivated(arriving, width, 2 if stage > 1 and i == 0 else 1))
                arriving = width
            setattr(self, f"block{stage}", _Stage(*blocks))
        self.bn1, self.fc = nn.BatchNorm2d(arriving), nn.Linear(arriving, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.bn1(x).relu().mean(dim=(2, 3)))


class VGG(nn.Module):
    """Stages `block0` to `block4`, three poolings for images of 32 pixels, and one linear layer."""

    def __init__(self, convolutions: tuple[int, ...], *, classes: int):
        super().__init__()
        widths, arriving = (64, 128, 256, 512, 512), 3
        for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
            layers = []
            for _ in range(count):
                layers += [_conv3(arriving, width, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
                arriving = width
            setattr(self, f"block{stage}", nn.Sequential(*layers[:-1]))
        self.classifier = nn.Linear(arriving, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in range(5):
            x = getattr(self, f"block{stage}")(x).relu()
            if stage < 3:
                x = functional.max_pool2d(x, 2)
        return self.classifier(x.mean(dim=(2, 3)))
