"""MoLFormer's attention (Ross et al. 2022): rotary positions, random features, linear time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lipo_cli.model.config import MolformerConfig


def rotary_tables(length: int, head_dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns cosines and sines [length, head_dim] of rotary positions (half-split, base 10000)."""
    exponents = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32) / head_dim
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] / 10000**exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def orthogonal_features(head_dim: int, n_features: int) -> Tensor:
    """Draws random features [head_dim, n_features]: orthogonal blocks with normal row norms."""
    blocks = []
    for start in range(0, n_features, head_dim):
        normal = torch.randn(head_dim, head_dim)
        orthogonal, _ = torch.linalg.qr(normal)
        block = orthogonal.T * normal.norm(dim=1, keepdim=True)
        blocks.append(block[: min(head_dim, n_features - start)])
    return torch.cat(blocks).T.contiguous()


class FeatureMap(nn.Module):
    """Random features of the attention kernel: relu(x W), W fixed and saved.

    The published code redraws W at every forward pass, so that a molecule is scored differently on
    each call. Here W is a persistent buffer, drawn once with the model's weights.
    """

    weight: Tensor

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        head_dim = config.hidden_size // config.num_attention_heads
        self.register_buffer("weight", orthogonal_features(head_dim, config.num_random_features))

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [..., head_dim] to features [..., n_features]."""
        return torch.relu(x @ self.weight)


class LinearAttention(nn.Module):
    """out = phi(q) (phi(k)^T v) / max(phi(q) . sum phi(k), eps), in time linear in the length."""

    def __init__(self, config: MolformerConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.eps = config.linear_attention_eps
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.feature_map = FeatureMap(config)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, hidden: Tensor, mask: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Attends within hidden [batch, length, hidden]; mask [batch, length], 1 at tokens."""
        query = self._split(self.query(hidden))
        key = self._split(self.key(hidden))
        value = self._split(self.value(hidden))
        # Sums over the whole length lose too much in half precision: bf16 was seen 0.8 off.
        with torch.autocast(hidden.device.type, enabled=False):
            cos, sin = rotary
            query = self.feature_map(_rotate(query.to(cos.dtype), cos, sin))
            key = self.feature_map(_rotate(key.to(cos.dtype), cos, sin))
            key = key * mask[:, None, :, None].to(key.dtype)
            context = key.transpose(-1, -2) @ value.to(key.dtype)
            normaliser = query @ key.sum(dim=-2).unsqueeze(-1)
            out = (query @ context) / normaliser.clamp(min=self.eps)
        return out.transpose(1, 2).flatten(-2).to(hidden.dtype)
