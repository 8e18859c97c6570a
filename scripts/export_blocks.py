#!/usr/bin/env python3
"""Golden files of the blocks for which no trained weights with a clear licence are at hand: bottlenecks with a deformable convolution
(v1 and v2) and with an involution in the middle.

    python export_blocks.py [--out ../tests/golden_blocks]

Weights are random from a seed, named as `wgconv::blocks::Bottleneck` loads them, beside `input`, `output` in single and `output64` in
double precision (stored as f64). Needs numpy, safetensors, torch, torchvision.
"""

import argparse
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import DeformConv2d


class Deformable(nn.Module):
    """Dai et al. 2017; with a mask Zhu et al. 2019. One convolution predicts offsets and mask, as in MMCV."""

    def __init__(self, channels, stride, mask):
        super().__init__()
        self.mask = mask
        deform = DeformConv2d(channels, channels, 3, stride=stride, padding=1, bias=False)
        self.weight, self.forward_deform = deform.weight, deform.forward
        self.conv_offset = nn.Conv2d(channels, 27 if mask else 18, 3, stride=stride, padding=1)

    def forward(self, x):
        made = self.conv_offset(x)
        return self.forward_deform(x, made[:, :18], torch.sigmoid(made[:, 18:]) if self.mask else None)


class Involution(nn.Module):
    """Li et al. 2021, as the authors write it."""

    def __init__(self, channels, kernel, stride, group):
        super().__init__()
        self.kernel, self.stride, self.group = kernel, stride, group
        self.conv1 = nn.Module()
        self.conv1.conv = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv1.bn = nn.BatchNorm2d(channels // 4)
        self.conv2 = nn.Module()
        self.conv2.conv = nn.Conv2d(channels // 4, kernel * kernel * (channels // group), 1)
        self.pool = nn.AvgPool2d(stride, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        weight = self.conv2.conv(torch.relu(self.conv1.bn(self.conv1.conv(self.pool(x)))))
        n, _, h, w = weight.shape
        taps = self.kernel * self.kernel
        weight = weight.view(n, x.shape[1] // self.group, 1, taps, h, w)
        windows = nn.functional.unfold(x, self.kernel, padding=self.kernel // 2, stride=self.stride)
        windows = windows.view(n, x.shape[1] // self.group, self.group, taps, h, w)
        return (weight * windows).sum(dim=3).view(n, x.shape[1], h, w)


class Bottleneck(nn.Module):
    """He et al. 2016, with the stride in the middle."""

    def __init__(self, c_in, width, c_out, stride, middle):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(c_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = middle, nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, c_out, 1, bias=False), nn.BatchNorm2d(c_out)
        change = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))
        self.downsample = change if stride > 1 or c_in != c_out else None

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.relu(self.bn3(self.conv3(y)) + shortcut)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = pathlib.Path(__file__).resolve().parent
    parser.add_argument("--out", type=pathlib.Path, default=here.parent / "tests" / "golden_blocks")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, block, shape in [
        ("deform_v1", lambda: Bottleneck(16, 8, 16, 1, Deformable(8, 1, False)), (2, 16, 11, 9)),
        ("deform_v2", lambda: Bottleneck(16, 8, 24, 2, Deformable(8, 2, True)), (1, 16, 12, 14)),
        ("rednet", lambda: Bottleneck(16, 8, 16, 1, Involution(8, 7, 1, 4)), (2, 16, 10, 9)),
        ("rednet_stride", lambda: Bottleneck(16, 8, 24, 2, Involution(8, 5, 2, 4)), (1, 16, 12, 14)),
    ]:
        torch.manual_seed(7)
        block = block().eval()
        for key, value in block.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif key.endswith("running_mean"):
                value.uniform_(-0.2, 0.2)
            elif ".bn" in f".{key}" or "downsample.1" in key:
                if value.is_floating_point():
                    value.uniform_(0.3, 1.3)
            elif "conv_offset" in key:
                # Offsets of a pixel or two, most of them no whole number.
                value.mul_(3.0)
        x = torch.randn(shape)
        with torch.no_grad():
            tensors = {k: v.clone() for k, v in block.state_dict().items() if v.is_floating_point()}
            tensors.update(input=x, output=block(x), output64=block.double()(x.double()))
        tensors = {key: value.contiguous() for key, value in tensors.items()}
        save_file(tensors, out / f"{name}.safetensors")
        difference = (tensors["output"].double() - tensors["output64"]).abs().max().item()
        print(f"{name}: {tuple(tensors['output'].shape)}, single against double precision {difference:.2e}")


if __name__ == "__main__":
    main()
