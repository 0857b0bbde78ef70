"""EVA's vision transformer, under the names that the published files give its weights."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.models.attention import attend, join_heads, split_heads
from lavis_dynrefer.models.precision import active_autocast, without_autocast

_EPSILON = 1e-6  # of the norms, EVA-CLIP-g
_STD = 0.02  # of random weights
# A processor is quickest where what a layer makes fits its caches, and where the allocator keeps
# the memory from one layer to the next; 12 views of 256 channels were the best of 3 to 96.
_LAYER_BYTES = 16 << 20
_LEAST_ROWS = 1024  # of a matrix product; with fewer its weights are read too often


class VisionTransformer(nn.Module):
    """Views to tokens, without a final norm.

    It computes in the format of the autocast around it, or else in float32, whatever its weights
    are stored in: a weight of another format is cast for its product and never kept. The sum that
    runs from block to block, and the norms, are float32, as in the released code.

    Args:
        config: S is its `image_size` in pixels, C its `width`.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, hidden = config.width, int(config.width * config.mlp_ratio)
        self.use_checkpoint = config.grad_checkpoint
        self.patch_embed = PatchEmbedding(config.patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, config.grid**2 + 1, width))
        self.blocks = nn.ModuleList(
            [Block(width, config.heads, hidden) for _ in range(config.depth)]
        )
        self._layer_bytes = hidden * self.pos_embed.shape[1] * self.pos_embed.element_size()
        self._start()

    def _start(self) -> None:
        """Random weights as EVA begins with; none are made on the meta device."""
        nn.init.trunc_normal_(self.pos_embed, std=_STD)
        nn.init.trunc_normal_(self.cls_token, std=_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for number, block in enumerate(self.blocks, 1):
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data.div_(math.sqrt(2 * number))

    def store_in(self, dtype: torch.dtype) -> None:
        """Keep the weights of products in a format; the others in float32, as the released code."""
        for module in self.modules():
            added = isinstance(module, (Norm, VisionTransformer))
            for name, weight in list(module.named_parameters(recurse=False)):
                values = weight.detach().to(torch.float32 if added else dtype)
                setattr(module, name, nn.Parameter(values, requires_grad=weight.requires_grad))

    def forward(self, views: Tensor) -> Tensor:
        """Tokens (M, N, C) in float32, class token first, of normalised views (M, 3, S, S)."""
        dtype = active_autocast(views.device) or torch.float32
        with without_autocast(views.device):
            parts = [self._encode(part, dtype) for part in self._parts(views)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _parts(self, views: Tensor) -> Iterator[Tensor]:
        """On a CPU as many views at once as its caches like; on other devices all of them."""
        if views.device.type != "cpu":
            return iter((views,))
        tokens = self.pos_embed.shape[1]
        return iter(views.split(max(1, _LAYER_BYTES // self._layer_bytes, _LEAST_ROWS // tokens)))

    def _encode(self, views: Tensor, dtype: torch.dtype) -> Tensor:
        patches = self.patch_embed(views.to(dtype))
        first = self.cls_token.expand(len(views), -1, -1)
        tokens = torch.cat([first.float(), patches.float()], dim=1) + self.pos_embed.float()
        for block in self.blocks:
            if self.use_checkpoint:
                tokens = checkpoint(block, tokens, dtype, use_reentrant=False)
            else:
                tokens = block(tokens, dtype)
        return tokens


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = Norm(width, eps=_EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = Norm(width, eps=_EPSILON)
        self.mlp = FeedForward(width, hidden)

    def forward(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """Tokens (M, N, C) in float32; products in `dtype`."""
        tokens = tokens + self.attn(self.norm1(tokens).to(dtype))
        return tokens + self.mlp(self.norm2(tokens).to(dtype))


class Attention(nn.Module):
    """Every token attends to all; the keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(M, N, C) to (M, N, C)."""
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        weight = self.qkv.weight
        joined = F.linear(tokens, weight.to(tokens.dtype), bias.to(tokens.dtype))
        queries, keys, values = (split_heads(part, self.heads) for part in joined.chunk(3, dim=-1))
        return self.proj(join_heads(attend(queries, keys, values)))


class FeedForward(nn.Module):
    """Two layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(width, hidden)
        self.fc2 = Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(M, N, C) to (M, N, C)."""
        return self.fc2(F.gelu(self.fc1(tokens)))


class PatchEmbedding(nn.Module):
    """A view as a row of patches."""

    def __init__(self, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, views: Tensor) -> Tensor:
        """(M, 3, S, S) to (M, N - 1, C)."""
        weight, bias = (part.to(views.dtype) for part in (self.proj.weight, self.proj.bias))
        return F.conv2d(views, weight, bias, self.proj.stride).flatten(2).transpose(1, 2)


class Linear(nn.Linear):
    """Computes in the format of what it is given, whatever its weights are stored in."""

    def forward(self, states: Tensor) -> Tensor:
        """As `nn.Linear`."""
        bias = None if self.bias is None else self.bias.to(states.dtype)
        return F.linear(states, self.weight.to(states.dtype), bias)


class Norm(nn.LayerNorm):
    """In float32, whatever its weights are stored in."""

    def forward(self, states: Tensor) -> Tensor:
        """As `nn.LayerNorm`, for float32."""
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(states, self.normalized_shape, weight, bias, self.eps)
