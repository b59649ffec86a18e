"""Dropout by random bytes: what it keeps, how it scales, and when it is the identity."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lipo_cli.model.dropout import Dropout

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def dropped(x: Tensor, p: float, seed: int = 0) -> Tensor:
    layer = Dropout(p).train()
    torch.manual_seed(seed)
    out: Tensor = layer(x)
    return out


def levels(p: float) -> int:
    """How many of 256 elements are dropped."""
    return round(256 * p)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.25, 0.5, 0.9, 0.99])
def test_share_of_zeros_is_the_rate_rounded_to_a_256th(p: float) -> None:
    n = 400_000
    rate = levels(p) / 256
    assert abs(rate - p) <= 1 / 512
    found = float((dropped(torch.ones(n), p) == 0).double().mean())
    # Five standard deviations of a binomial share; at 0.1 the distance to the rate that was asked
    # for is more, so that the rounding itself is seen.
    assert abs(found - rate) < 5 * math.sqrt(rate * (1 - rate) / n)


def test_rounding_is_seen_at_a_tenth() -> None:
    n = 4_000_000
    found = float((dropped(torch.ones(n), 0.1) == 0).double().mean())
    spread = math.sqrt(0.1 * 0.9 / n)
    assert abs(found - 26 / 256) < 5 * spread < abs(found - 0.1)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.8])
def test_expectation_is_the_input(p: float) -> None:
    x = torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64)
    n = 200_000
    mean = dropped(x.expand(n, 3), p).mean(dim=0)
    rate = levels(p) / 256
    spread = x.abs() * math.sqrt(rate / (1 - rate) / n)
    assert bool(((mean - x).abs() < 5 * spread).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_kept_elements_are_scaled_by_the_rounded_rate(p: float, dtype: torch.dtype) -> None:
    out = dropped(torch.full((1001,), 2.0, dtype=dtype), p)
    assert out.dtype == dtype
    scale = torch.tensor(256 / (256 - levels(p)), dtype=dtype)
    assert set(out.tolist()) == {0.0, float(2 * scale)}


@pytest.mark.parametrize("p", [0.0, 0.0019, 0.3, 1.0])
def test_evaluation_is_the_identity(p: float) -> None:
    x = torch.randn(5, 7)
    assert Dropout(p).eval()(x) is x


@pytest.mark.parametrize("p", [0.0, 0.0019])
def test_rate_that_rounds_to_zero_is_the_identity_and_draws_nothing(p: float) -> None:
    x = torch.randn(5, 7)
    before = torch.get_rng_state()
    assert Dropout(p).train()(x) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_rate_of_one_drops_all() -> None:
    assert not bool(dropped(torch.ones(9), 1.0).any())


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_is_the_scale_of_the_mask(dtype: torch.dtype) -> None:
    x = torch.full((13, 5), 3.0, dtype=dtype, requires_grad=True)
    out = dropped(x, 0.4)
    out.backward(torch.ones_like(out))
    scale = torch.tensor(256 / (256 - levels(0.4)), dtype=dtype)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.where(out == 0, torch.zeros_like(scale), scale))
    assert 0 < int((x.grad == 0).sum()) < x.numel()


def test_seed_decides_the_mask() -> None:
    x = torch.ones(1000)
    assert torch.equal(dropped(x, 0.3, seed=4), dropped(x, 0.3, seed=4))
    assert not torch.equal(dropped(x, 0.3, seed=4), dropped(x, 0.3, seed=5))
    torch.manual_seed(4)
    layer = Dropout(0.3)
    assert not torch.equal(layer(x), layer(x)), "each call draws anew"


def test_mask_does_not_depend_on_the_dtype() -> None:
    masks = [dropped(torch.ones(999, dtype=dtype), 0.3) == 0 for dtype in DTYPES]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("shape", [(1,), (7,), (8,), (9,), (3, 5), (2, 3, 11), (), (0,), (4, 0)])
def test_any_shape_is_kept(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape)
    out = dropped(x, 0.5)
    assert out.shape == x.shape
    assert set(out.flatten().tolist()) <= {0.0, 2.0}


def test_neighbours_in_one_draw_are_independent() -> None:
    mask = (dropped(torch.ones(50_000, 8), 0.5) == 0).double()
    correlation = torch.corrcoef(mask.T) - torch.eye(8, dtype=torch.float64)
    assert float(correlation.abs().max()) < 5 / math.sqrt(50_000)
    share = mask.mean(dim=0)
    assert float((share - 0.5).abs().max()) < 5 * 0.5 / math.sqrt(50_000)


def test_input_that_is_not_contiguous_is_masked_in_its_own_order() -> None:
    x = torch.arange(1.0, 36.0).reshape(5, 7)
    for view in (x.T, x[:, ::2], x[1].expand(4, 7)):
        assert not view.is_contiguous()
        assert torch.equal(dropped(view, 0.5), dropped(view.contiguous(), 0.5))
