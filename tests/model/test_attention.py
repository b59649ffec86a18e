"""Rotary linear attention against naive implementations, and its random features."""

from __future__ import annotations

import math

import pytest
import torch

from lipo_cli.model.attention import (
    FeatureMap,
    LinearAttention,
    _rotate,
    orthogonal_features,
    rotary_tables,
)
from lipo_cli.model.heads import mean_pool
from lipo_cli.model.modeling import MolformerForSequenceClassification, MolformerModel
from tests.fixtures.models import tiny_config


def rotated_by_complex_numbers(x: torch.Tensor) -> torch.Tensor:
    """Rotates x [length, head_dim]: (x_j + i x_{j + d/2}) exp(i m 10000^{-2j/d}) at position m."""
    length, width = x.shape
    half = width // 2
    out = torch.empty_like(x)
    for m in range(length):
        for j in range(half):
            turned = complex(x[m, j], x[m, j + half]) * complex(
                math.cos(m * 10000 ** (-2 * j / width)), math.sin(m * 10000 ** (-2 * j / width))
            )
            out[m, j], out[m, j + half] = turned.real, turned.imag
    return out


def naive_attention(
    module: LinearAttention, hidden: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, list[float]]:
    """Computes each output as a weighted mean over all pairs of positions, one head at a time.

    Returns:
        The output, and the sum of weights of each position and head.
    """
    batch, length, width = hidden.shape
    head_dim = width // module.heads
    features = module.feature_map.weight
    out, sums = torch.zeros_like(hidden), []
    for b in range(batch):
        for head in range(module.heads):
            part = slice(head * head_dim, (head + 1) * head_dim)
            query, key, value = (
                hidden[b] @ linear.weight[part].T + linear.bias[part]
                for linear in (module.query, module.key, module.value)
            )
            query, key = rotated_by_complex_numbers(query), rotated_by_complex_numbers(key)
            for i in range(length):
                total, weights = torch.zeros(head_dim, dtype=hidden.dtype), 0.0
                for j in range(length):
                    if not mask[b, j]:
                        continue
                    phi_q = torch.clamp(features.T @ query[i], min=0)
                    phi_k = torch.clamp(features.T @ key[j], min=0)
                    weight = float(phi_q @ phi_k)
                    total, weights = total + weight * value[j], weights + weight
                out[b, i, part] = total / max(weights, module.eps)
                sums.append(weights)
    return out, sums


def test_rotation_equals_complex_multiplication() -> None:
    torch.manual_seed(0)
    x = torch.randn(9, 8, dtype=torch.float64)
    cos, sin = rotary_tables(9, 8, torch.device("cpu"))
    found = _rotate(x, cos.double(), sin.double())
    torch.testing.assert_close(found, rotated_by_complex_numbers(x), atol=1e-5, rtol=0)


def test_rotated_products_depend_on_the_distance_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(8), torch.randn(8)
    cos, sin = rotary_tables(30, 8, torch.device("cpu"))
    queries, keys = _rotate(query.expand(30, 8), cos, sin), _rotate(key.expand(30, 8), cos, sin)
    products = queries @ keys.T
    for distance in range(-5, 6):
        diagonal = torch.diagonal(products, distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-5, rtol=0)


@pytest.mark.parametrize("eps", [1e-6, 25.0])
@pytest.mark.parametrize("seed", range(3))
@torch.no_grad()
def test_attention_equals_a_sum_over_all_pairs(seed: int, eps: float) -> None:
    torch.manual_seed(seed)
    module = LinearAttention(tiny_config(linear_attention_eps=eps)).double()
    hidden = torch.randn(2, 7, 16, dtype=torch.float64)
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    cos, sin = rotary_tables(7, 8, torch.device("cpu"))
    found = module(hidden, mask, (cos.double(), sin.double()))
    wanted, sums = naive_attention(module, hidden, mask)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    if eps > 1:
        assert min(sums) < eps < max(sums), "the floor must hold for some positions, not for all"


@torch.no_grad()
def test_a_query_without_features_gives_zeros_not_nan() -> None:
    module = LinearAttention(tiny_config())
    module.query.weight.zero_()
    module.query.bias.zero_()
    cos, sin = rotary_tables(5, 8, torch.device("cpu"))
    out = module(torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.long), (cos, sin))
    assert bool((out == 0).all())


@pytest.mark.parametrize(("head_dim", "n_features"), [(64, 32), (8, 8), (8, 20), (32, 64)])
def test_feature_blocks_are_orthogonal_before_the_row_norms(head_dim: int, n_features: int) -> None:
    torch.manual_seed(1)
    rows = orthogonal_features(head_dim, n_features).T
    assert rows.shape == (n_features, head_dim)
    for start in range(0, n_features, head_dim):
        block = rows[start : start + head_dim]
        unit = block / block.norm(dim=1, keepdim=True)
        torch.testing.assert_close(unit @ unit.T, torch.eye(len(block)), atol=1e-5, rtol=0)


def test_feature_norms_are_those_of_normal_vectors() -> None:
    torch.manual_seed(2)
    squared = torch.cat([orthogonal_features(32, 64).norm(dim=0) ** 2 for _ in range(40)])
    assert float(squared.mean()) == pytest.approx(32, rel=0.03)  # chi-squared: mean 32, var 64
    assert float(squared.var()) == pytest.approx(64, rel=0.15)


def test_features_stay_fixed_in_training_mode() -> None:
    module = FeatureMap(tiny_config()).train()
    x = torch.randn(3, 8)
    before = module.weight.clone()
    first, second = module(x), module(x)
    assert torch.equal(first, second)
    assert torch.equal(module.weight, before)
    assert not list(module.parameters()), "the features are a buffer: no optimiser may move them"
    assert "weight" in module.state_dict()


def test_model_with_dropout_off_repeats_itself_in_training_mode() -> None:
    config = tiny_config(hidden_dropout_prob=0.0, embedding_dropout_prob=0.0)
    model = MolformerModel(config).train()
    ids = torch.randint(5, 30, (2, 12))
    assert torch.equal(model(ids).last_hidden_state, model(ids).last_hidden_state)


@torch.no_grad()
def test_bf16_autocast_stays_near_float32() -> None:
    torch.manual_seed(0)
    module = LinearAttention(tiny_config(hidden_size=64, num_attention_heads=4))
    hidden = torch.randn(2, 150, 64)
    mask = torch.ones(2, 150, dtype=torch.long)
    tables = rotary_tables(150, 16, torch.device("cpu"))
    exact = module(hidden, mask, tables)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(hidden, mask, tables)
    error = (exact - rounded).square().mean().sqrt() / exact.square().mean().sqrt()
    # bf16 has 8 bits: the projections are off by 0.4 %, and the sums over keys must add little.
    assert float(error) < 0.02


def test_mean_pool_ignores_padding_and_keeps_float64() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]], dtype=torch.float64) + 1e-12
    pooled = mean_pool(hidden, torch.tensor([[1, 1, 0]]))
    assert pooled.dtype == torch.float64
    assert float(pooled[0, 0]) == pytest.approx(2 + 1e-12, abs=1e-15)


def test_half_precision_is_pooled_in_float32() -> None:
    hidden = torch.full((1, 1000, 1), 100.0, dtype=torch.float16)  # the sum overflows float16
    pooled = mean_pool(hidden, torch.ones(1, 1000, dtype=torch.long))
    assert pooled.dtype == torch.float32
    assert float(pooled) == 100.0


def test_loss_gradient_equals_finite_differences_in_float64() -> None:
    torch.manual_seed(3)
    config = tiny_config(hidden_dropout_prob=0.0, embedding_dropout_prob=0.0)
    model = MolformerForSequenceClassification(config).double().train()
    model.classifier.label_mean.fill_(2.0)
    model.classifier.label_scale.fill_(1.3)
    ids = torch.randint(5, 30, (3, 9))
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [1] * 7 + [0] * 2])
    labels = torch.tensor([1.0, 3.5, 2.2], dtype=torch.float64)

    def loss() -> torch.Tensor:
        return model(ids, mask, labels=labels).loss

    loss().backward()
    step = 1e-6
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        # one random direction per tensor: the slope along it is the gradient's product with it
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        start = parameter.data.clone()
        with torch.no_grad():
            parameter.data = start + step * direction
            above = float(loss())
            parameter.data = start - step * direction
            below = float(loss())
            parameter.data = start
        wanted = (above - below) / (2 * step)
        assert parameter.grad is not None, name
        found = float((parameter.grad * direction).sum())
        assert found == pytest.approx(wanted, rel=1e-5, abs=1e-8), name


def test_loss_is_the_standardised_squared_error() -> None:
    model = MolformerForSequenceClassification(tiny_config()).eval()
    model.classifier.label_mean.fill_(2.0)
    model.classifier.label_scale.fill_(1.5)
    ids = torch.randint(5, 30, (4, 6))
    labels = torch.tensor([1.0, 2.0, 3.0, 4.0])
    with torch.no_grad():
        out = model(ids, labels=labels)
    by_hand = sum(
        ((float(p) - float(y)) / 1.5) ** 2 for p, y in zip(out.logits[:, 0], labels, strict=True)
    )
    assert float(out.loss) == pytest.approx(by_hand / 4, rel=1e-5)
