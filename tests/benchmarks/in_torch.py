"""The steps of `torch_side_by_side.py` as one would write them in PyTorch: plain modules, eager."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def conv_norm(inside: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1):
    return nn.Sequential(
        nn.Conv2d(inside, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out),
    )


class Residual(nn.Module):
    def __init__(self, inside: int, out: int, stride: int, project: bool):
        super().__init__()
        self.first = conv_norm(inside, out, stride=stride)
        self.second = conv_norm(out, out)
        self.shortcut = conv_norm(inside, out, 1, stride) if project else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(F.relu(self.first(x)))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """3x3 stem; the mean over space."""

    def __init__(self, blocks: Sequence[int], widths: Sequence[int]):
        super().__init__()
        self.stem = conv_norm(3, widths[0])
        layers, inside = [], widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths[1:], strict=True)):
            for i in range(count):
                stride = 2 if stage and not i else 1
                layers.append(Residual(inside, width, stride, stride == 2 or inside != width))
                inside = width
        self.layers, self.dim = nn.Sequential(*layers), inside

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(F.relu(self.stem(x))).mean((2, 3))


def cifar_resnet(depth: int) -> ResNet:
    """`resnet{depth}x4` of the distillation tables."""
    return ResNet([(depth - 2) // 6] * 3, [32, 64, 128, 256])


def resnet18(width: int) -> ResNet:
    return ResNet([2, 2, 2, 2], [width, width, 2 * width, 4 * width, 8 * width])


class Excite(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(gate))


def _rounded(width: float) -> int:
    nearest = max(8, int(width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * width else nearest


class Inverted(nn.Module):
    def __init__(self, inside, kernel, expanded, out, stride, excite, swish):
        super().__init__()
        act = nn.Hardswish if swish else nn.ReLU
        layers: list[nn.Module] = []
        if expanded != inside:
            layers += [conv_norm(inside, expanded, 1), act()]
        layers += [conv_norm(expanded, expanded, kernel, stride, expanded), act()]
        if excite:
            layers += [Excite(expanded, _rounded(expanded // 4))]
        layers += [conv_norm(expanded, out, 1)]
        self.layers, self.residual = nn.Sequential(*layers), stride == 1 and inside == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


_SMALL = (
    (3, 16, 16, 2, True, False),
    (3, 72, 24, 2, False, False),
    (3, 88, 24, 1, False, False),
    (5, 96, 40, 2, True, True),
    (5, 240, 40, 1, True, True),
    (5, 240, 40, 1, True, True),
    (5, 120, 48, 1, True, True),
    (5, 144, 48, 1, True, True),
    (5, 288, 96, 2, True, True),
    (5, 576, 96, 1, True, True),
    (5, 576, 96, 1, True, True),
)
"""Howard et al. 2019, table 2."""


class MobileNetV3Small(nn.Module):
    """With a stem of stride 1, for small images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 16), nn.Hardswish())
        rows, inside = [], 16
        for kernel, expanded, out, stride, excite, swish in _SMALL:
            rows.append(Inverted(inside, kernel, expanded, out, stride, excite, swish))
            inside = out
        self.rows = nn.Sequential(*rows)
        self.last = nn.Sequential(conv_norm(96, 576, 1), nn.Hardswish())
        self.hidden, self.dim = nn.Linear(576, 1024), 1024

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish(self.hidden(self.last(self.rows(self.stem(x))).mean((2, 3))))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, mlp: int):
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down, self.heads = nn.Linear(width, mlp), nn.Linear(mlp, width), heads

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        qkv = self.qkv(self.before(x)).reshape(n, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(1, 2).reshape(n, tokens, width))
        return x + self.down(F.gelu(self.up(self.after(x)), approximate="tanh"))


class ViT(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, mlp: int, patch: int, side: int):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.position = nn.Parameter(torch.randn(1, (side // patch) ** 2, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, mlp) for _ in range(depth)))
        self.norm, self.dim = nn.LayerNorm(width), width

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.norm(self.blocks(tokens)).mean(1)


def classifier(encoder, classes: int) -> nn.Module:
    return nn.Sequential(encoder, nn.Linear(encoder.dim, classes))


def crops(images: Tensor) -> Tensor:
    """SimCLR's crops and flips of uint8 images [batch, 3, side, side], in one batch."""
    n, side = images.shape[0], images.shape[-1]
    area = torch.empty(n).uniform_(0.08, 1.0)
    ratio = torch.exp(torch.empty(n).uniform_(math.log(3 / 4), math.log(4 / 3)))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    x = (torch.rand(n) * 2 - 1) * (1 - width)
    y = (torch.rand(n) * 2 - 1) * (1 - height)
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    zero = torch.zeros(n)
    theta = torch.stack([width * flip, zero, x, zero, height, y], 1).reshape(n, 2, 3)
    grid = F.affine_grid(theta, [n, 3, side, side], align_corners=False)
    return F.grid_sample(images.float() / 255, grid, align_corners=False, padding_mode="reflection")


_LUMA = torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)


def _hue(x: Tensor, turn: Tensor) -> Tensor:
    top, _ = x.max(1)
    low, _ = x.min(1)
    chroma = top - low
    safe = torch.where(chroma > 0, chroma, 1.0)
    r, g, b = x.unbind(1)
    hue = torch.where(
        top == r,
        ((g - b) / safe) % 6,
        torch.where(top == g, (b - r) / safe + 2, (r - g) / safe + 4),
    )
    hue = hue + 6 * turn[:, None, None]
    planes = []
    for shift in (5, 3, 1):
        k = (shift + hue) % 6
        planes.append(top - chroma * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.stack(planes, 1)


def colours(x: Tensor) -> Tensor:
    """SimCLR's jitter, grayscale and blur of 3 taps, in one batch and one order."""
    n = x.shape[0]

    def by(low: float, high: float) -> Tensor:
        return torch.empty(n, 1, 1, 1).uniform_(low, high)

    y = (x * by(0.2, 1.8)).clamp(0, 1)
    mean = (y * _LUMA).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    amount = by(0.2, 1.8)
    y = (amount * y + (1 - amount) * mean).clamp(0, 1)
    amount = by(0.2, 1.8)
    y = (amount * y + (1 - amount) * (y * _LUMA).sum(1, keepdim=True)).clamp(0, 1)
    y = _hue(y, torch.empty(n).uniform_(-0.2, 0.2))
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.8, y, x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.2, (x * _LUMA).sum(1, keepdim=True), x)
    sigma = torch.empty(n).uniform_(0.1, 2.0)
    side = torch.exp(-1 / (2 * sigma**2))
    taps = torch.stack([side, torch.ones(n), side], 1)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = F.pad(x, (1, 1, 1, 1), mode="reflect").reshape(1, 3 * n, *(s + 2 for s in x.shape[2:]))
    blurred = F.conv2d(flat, taps[:, None, None], groups=3 * n)
    blurred = F.conv2d(blurred, taps[:, None, :, None], groups=3 * n).reshape(x.shape)
    return torch.where(torch.rand(n, 1, 1, 1) < 0.5, blurred, x)


def nt_xent(z: Tensor, temperature: float) -> Tensor:
    """Rows 0..n-1 and n..2n-1 are the two views."""
    z = F.normalize(z)
    n = z.shape[0] // 2
    similar = z @ z.T / temperature
    similar.fill_diagonal_(-1e9)
    return F.cross_entropy(similar, torch.arange(2 * n).roll(n))


def step(name: str, *, compiled: bool) -> Callable[[], object]:
    """One training step of a row of the table, with its forward, backward and SGD."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    last = {"memory_format": torch.channels_last}
    teacher: nn.Module | None = None
    if name.startswith("kd"):
        student = classifier(cifar_resnet(8), 100)
        images = torch.randn(64, 3, 32, 32).to(**last)
        labels, cached = torch.randint(0, 100, (64,)), torch.randn(64, 100)
        if name == "kd_live":
            teacher = classifier(cifar_resnet(32), 100).to(**last).eval()
    elif name.startswith("simclr"):
        width, batch = {"simclr_64": (64, 64), "simclr_16": (16, 128)}[name]
        encoder = resnet18(width)
        student = nn.Sequential(encoder, nn.Linear(encoder.dim, 128), nn.ReLU(), nn.Linear(128, 64))
        raw = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    else:
        encoder, batch = {
            "mobilenet_v3": lambda: (MobileNetV3Small(), 64),
            "vit": lambda: (ViT(192, 6, 3, 768, 4, 32), 128),
        }[name]()
        student = classifier(encoder, 100)
        images, labels = torch.randn(batch, 3, 32, 32).to(**last), torch.randint(0, 100, (batch,))
    student = student.to(**last).train()
    optimizer = torch.optim.SGD(student.parameters(), 1e-3, 0.9, weight_decay=5e-4)
    model = torch.compile(student) if compiled else student
    asked = torch.compile(teacher) if compiled and teacher is not None else teacher

    def loss() -> Tensor:
        if name.startswith("simclr"):
            views = torch.cat([colours(crops(raw)) for _ in range(2)]).contiguous(**last)
            return nt_xent(model(views), 0.5)
        if not name.startswith("kd"):
            return F.cross_entropy(model(images), labels)
        said = cached
        if asked is not None:
            with torch.no_grad():
                said = asked(images)
        logits = model(images)
        soft = F.kl_div(F.log_softmax(logits / 4, 1), F.softmax(said / 4, 1), reduction="batchmean")
        return 0.9 * 16 * soft + 0.1 * F.cross_entropy(logits, labels)

    def call() -> float:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        return found.item()

    return call
