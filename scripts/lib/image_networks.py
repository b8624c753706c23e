"""Writes networks that are no plain classifiers, traced, into argv[1]; prints name and size.

What people build beside them: segmentation, restoration, style, detection, attention.
Weights are random, which changes no time.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from convship._torchvision import torchvision

Norm = Callable[[int], nn.Module]


def convolutions(c_in: int, c_out: int, norm: Norm, act: Callable[[], nn.Module]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (c_in, c_out):
        layers += [nn.Conv2d(channels, c_out, 3, padding=1, bias=False), norm(c_out), act()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Ronneberger et al., 2015, with a quarter of its channels."""

    def __init__(self, transposed: bool, norm: Norm, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        sizes = (32, 64, 128, 256)
        self.down = nn.ModuleList(
            convolutions(a, b, norm, act) for a, b in zip((3, *sizes), sizes, strict=False)
        )
        self.up, self.join = nn.ModuleList(), nn.ModuleList()
        for below, here in zip(sizes[:0:-1], sizes[-2::-1], strict=True):
            twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.up.append(
                nn.ConvTranspose2d(below, here, 2, stride=2)
                if transposed
                else nn.Sequential(twice, nn.Conv2d(below, here, 1))
            )
            self.join.append(convolutions(2 * here, here, norm, act))
        self.last = nn.Conv2d(sizes[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for number, layer in enumerate(self.down):
            x = layer(F.max_pool2d(x, 2) if number else x)
            skips.append(x)
        for up, join, skip in zip(self.up, self.join, skips[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.last(x)


class Sum(nn.Module):
    def __init__(self, *layers: nn.Module, scale: float = 1) -> None:
        super().__init__()
        self.layers, self.scale = nn.Sequential(*layers), scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) * self.scale


def super_resolution() -> nn.Module:
    """EDSR (Lim et al., 2017) with four blocks, twice the side."""

    def conv(c_in: int, c_out: int) -> nn.Module:
        return nn.Conv2d(c_in, c_out, 3, padding=1)

    blocks = [Sum(conv(64, 64), nn.ReLU(), conv(64, 64), scale=0.1) for _ in range(4)]
    return nn.Sequential(conv(3, 64), Sum(*blocks, conv(64, 64)), conv(64, 256),
                         nn.PixelShuffle(2), conv(64, 3), nn.Hardtanh(0, 1))  # fmt: skip


def style() -> nn.Module:
    """Johnson et al., 2016, with three blocks: reflection, instance norm, nearest upsampling."""

    def conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        return [nn.ReflectionPad2d(kernel // 2), nn.Conv2d(c_in, c_out, kernel, stride),
                nn.InstanceNorm2d(c_out, affine=True)]  # fmt: skip

    relu = nn.ReLU()
    layers = [*conv(3, 32, 9), relu, *conv(32, 64, 3, 2), relu, *conv(64, 128, 3, 2), relu]
    layers += [Sum(*conv(128, 128, 3), relu, *conv(128, 128, 3)) for _ in range(3)]
    for channels in (128, 64):
        layers += [nn.Upsample(scale_factor=2), *conv(channels, channels // 2, 3), relu]
    return nn.Sequential(*layers, *conv(32, 3, 9)[:2])


class Detector(nn.Module):
    """YOLOv3-tiny (Redmon and Farhadi, 2018): leaky ReLU, two scales."""

    def __init__(self) -> None:
        super().__init__()

        def conv(c_in: int, c_out: int, kernel: int = 3) -> nn.Sequential:
            layer = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, bias=False)
            return nn.Sequential(layer, nn.BatchNorm2d(c_out), nn.LeakyReLU(0.1))

        layers: list[nn.Module] = []
        for c_in, c_out in zip((3, 16, 32, 64), (16, 32, 64, 128), strict=True):
            layers += [conv(c_in, c_out), nn.MaxPool2d(2)]
        self.fine = nn.Sequential(*layers, conv(128, 256))
        self.coarse = nn.Sequential(nn.MaxPool2d(2), conv(256, 512), nn.ZeroPad2d((0, 1, 0, 1)),
                                    nn.MaxPool2d(2, 1), conv(512, 1024),
                                    conv(1024, 256, 1))  # fmt: skip
        self.up = nn.Sequential(conv(256, 128, 1), nn.Upsample(scale_factor=2))
        self.large = nn.Sequential(conv(256, 512), nn.Conv2d(512, 255, 1))
        self.small = nn.Sequential(conv(384, 256), nn.Conv2d(256, 255, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(x)
        coarse = self.coarse(fine)
        return self.large(coarse), self.small(torch.cat([self.up(coarse), fine], 1))


class Segmentation(nn.Module):
    def __init__(self, make: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.network = make(weights=None, weights_backbone=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)["out"]


class Attention(nn.Module):
    """CBAM (Woo et al., 2018): a factor for each channel, then one for each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        few = channels // 16
        self.shared = nn.Sequential(nn.Conv2d(channels, few, 1, bias=False), nn.ReLU(),
                                    nn.Conv2d(few, channels, 1, bias=False))  # fmt: skip
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean = self.shared(F.adaptive_avg_pool2d(x, 1))
        x = x * torch.sigmoid(mean + self.shared(F.adaptive_max_pool2d(x, 1)))
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(both))


def attention() -> nn.Module:
    """resnet18, every block of which ends with attention before its sum."""
    network = torchvision.models.resnet18(weights=None)
    for layer in (network.layer1, network.layer2, network.layer3, network.layer4):
        for block in layer:
            block.bn2 = nn.Sequential(block.bn2, Attention(block.bn2.num_features))
    return network


class Pyramid(nn.Module):
    """RetinaNet (Lin et al., 2017) on resnet18: three scales, heads that answer with rows."""

    def __init__(self) -> None:
        super().__init__()
        body = torchvision.models.resnet18(weights=None)
        self.fine = nn.Sequential(*list(body.children())[:6])
        self.middle, self.coarse = body.layer3, body.layer4
        self.across = nn.ModuleList(nn.Conv2d(channels, 64, 1) for channels in (128, 256, 512))
        self.smooth = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))
        head: list[nn.Module] = []
        for _ in range(2):
            head += [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()]
        self.head = nn.Sequential(*head, nn.Conv2d(64, 9 * 24, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = [self.fine(x)]
        features.append(self.middle(features[0]))
        features.append(self.coarse(features[1]))
        maps = [conv(each) for conv, each in zip(self.across, features, strict=True)]
        for k in (1, 0):
            maps[k] = maps[k] + F.interpolate(maps[k + 1], scale_factor=2.0)
        rows = [self.head(smooth(each)).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 24)
                for smooth, each in zip(self.smooth, maps, strict=True)]  # fmt: skip
        found = torch.cat(rows, 1)
        return torch.sigmoid(found[..., :20]), found[..., 20:]


torchvision_segmentation = torchvision.models.segmentation
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "unet": (lambda: UNet(True, nn.BatchNorm2d, nn.ReLU), 128),
    "unet, bilinear, group norm": (
        lambda: UNet(False, lambda channels: nn.GroupNorm(8, channels), nn.LeakyReLU),
        128,
    ),
    "deeplabv3_mobilenet_v3_large": (
        lambda: Segmentation(torchvision_segmentation.deeplabv3_mobilenet_v3_large),
        224,
    ),
    "fcn_resnet50": (lambda: Segmentation(torchvision_segmentation.fcn_resnet50), 224),
    "detector": (Detector, 224),
    "super resolution": (super_resolution, 64),
    "style transfer": (style, 128),
    "attention": (attention, 224),
    "feature pyramid": (Pyramid, 256),
}

folder = Path(sys.argv[1])
for name, (make, side) in NETWORKS.items():
    torch.manual_seed(0)
    with torch.no_grad():
        traced = torch.jit.trace(make().eval(), torch.randn(1, 3, side, side))
    traced.save(str(folder / f"{name}.pt"))
    print(f"{side} {name}")
