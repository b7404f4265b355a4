"""The networks of the releases, written down from their papers and code: what conversions are
compared with. Names of the tensors are those that the releases have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.proj = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(dim=-1)
        mixed: torch.Tensor = self.proj((weights @ v).transpose(1, 2).reshape(x.shape))
        return mixed


class Mlp(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return result


class SwiGLU(nn.Module):
    """DINOv2's giant."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        result: torch.Tensor = self.w3(nn.functional.silu(gate) * value)
        return result


class LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool, scale: bool, gated: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, bias)
        self.ls1 = LayerScale(width) if scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = SwiGLU(width, gated) if gated else Mlp(width, 2 * width)
        self.ls2 = LayerScale(width) if scale else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        result: torch.Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return result


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.proj(pixels).flatten(2).transpose(1, 2)
        return result


class ViT(nn.Module):
    """``positions``: "all" tokens have one (MAE, DINO, timm), all but "registers" (DINOv2), or
    "patches" alone (timm's no_embed_class). Features: every token after the last norm."""

    cls_token: nn.Parameter | None
    dist_token: nn.Parameter | None

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        heads: int = 2,
        grid: tuple[int, int] = (4, 4),
        patch: int = 4,
        cls: bool = True,
        dist: bool = False,
        registers: int = 0,
        register_name: str = "register_tokens",
        positions: str = "all",
        scale: bool = False,
        gated: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.positions, self.register_name = positions, register_name
        self.special = int(cls) + int(dist)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if cls else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if dist else None
        if registers:
            self.register_parameter(register_name, nn.Parameter(torch.zeros(1, registers, width)))
        count = {"all": self.special + registers, "registers": self.special, "patches": 0}
        self.pos_embed = nn.Parameter(torch.zeros(1, count[positions] + grid[0] * grid[1], width))
        self.patch_embed = PatchEmbed(width, patch)
        self.blocks = nn.ModuleList(Block(width, heads, bias, scale, gated) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        batch = len(pixels)
        special = [t for t in (self.cls_token, self.dist_token) if t is not None]
        registers = [p for n, p in self.named_parameters() if n == self.register_name]
        x = self.patch_embed(pixels)
        if self.positions == "patches":
            x = x + self.pos_embed
            tokens = [*special, *registers]
            x = torch.cat([*(t.expand(batch, -1, -1) for t in tokens), x], dim=1)
        elif self.positions == "registers":
            x = torch.cat([*(t.expand(batch, -1, -1) for t in special), x], dim=1)
            x = x + self.pos_embed
            middle = [t.expand(batch, -1, -1) for t in registers]
            x = torch.cat([x[:, : self.special], *middle, x[:, self.special :]], dim=1)
        else:
            tokens = [*special, *registers]
            x = torch.cat([*(t.expand(batch, -1, -1) for t in tokens), x], dim=1)
            x = x + self.pos_embed
        for block in self.blocks:
            x = block(x)
        result: torch.Tensor = self.norm(x)
        return result


class Basic(nn.Module):
    """ResNet-18's and -34's block, in torchvision's names."""

    expansion = 1

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.downsample = _shortcut(before, inner, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        result: torch.Tensor = (y + self.downsample(x)).relu()
        return result


class Bottleneck(nn.Module):
    """ResNet-50's block with the stride in the 3x3 convolution, in torchvision's names."""

    expansion = 4

    def __init__(self, before: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, inner * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner * 4)
        self.downsample = _shortcut(before, inner * 4, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        result: torch.Tensor = (y + self.downsample(x)).relu()
        return result


def _shortcut(before: int, width: int, stride: int) -> nn.Module:
    if stride == 1 and before == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))


class ResNet(nn.Module):
    """Features: the last feature map, before pooling."""

    def __init__(
        self, block: type[Basic] | type[Bottleneck], depths: tuple[int, ...], width: int = 8
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for stage, depth in enumerate(depths):
            inner = width * 2**stage
            layers = []
            for number in range(depth):
                layers.append(block(before, inner, 2 if stage and not number else 1))
                before = inner * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = self.bn1(self.conv1(pixels)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


def randomize(module: nn.Module, seed: int = 11) -> None:
    """Every parameter and statistic moves the output, and no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif tensor.ndim == 1:
                scale = name.endswith(("weight", "gamma"))
                tensor.copy_(float(scale) + 0.2 * noise)
            elif "token" in name or "pos_embed" in name:
                tensor.copy_(noise)
            else:
                tensor.copy_(noise * tensor[0].numel() ** -0.5)


def prefixed(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: value for name, value in state.items()}
