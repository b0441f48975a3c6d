"""Instance normalisation: the card's numbers, masks, and extreme scales."""

import pytest
import torch

from sciseq.nn import instance_normalize


def make_windows(seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return 3 + 2 * torch.randn(4, 12, 5, generator=generator, dtype=dtype)


def test_equals_the_card():
    x = make_windows()
    z, mean, scale = instance_normalize(x)
    want_mean = x.mean(1, keepdim=True)
    want_scale = torch.sqrt(x.var(1, unbiased=False, keepdim=True) + 1e-5)
    torch.testing.assert_close(mean, want_mean, rtol=1e-13, atol=0)
    torch.testing.assert_close(scale, want_scale, rtol=1e-13, atol=0)
    torch.testing.assert_close(z, (x - want_mean) / want_scale, rtol=1e-12, atol=0)
    torch.testing.assert_close(z * scale + mean, x, rtol=1e-13, atol=0)
    unbiased = torch.sqrt(x.var(1, keepdim=True) + 1e-5)
    assert not torch.allclose(scale, unbiased, rtol=1e-3)


def test_mean_is_detached_and_scale_is_not():
    x = make_windows().requires_grad_()
    _, mean, scale = instance_normalize(x)
    assert not mean.requires_grad
    (gradient,) = torch.autograd.grad(scale.sum(), x)
    deviation = (x - x.mean(1, keepdim=True)).detach()
    torch.testing.assert_close(gradient, deviation / (12 * scale.detach()))


def test_mask_equals_removing_the_values():
    x = make_windows()
    observed = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.4
    spoiled = torch.where(observed, x, torch.nan).requires_grad_()
    z, mean, scale = instance_normalize(spoiled, observed)
    for b in range(4):
        for v in range(5):
            seen = observed[b, :, v]
            column = x[b, seen, v][None, :, None]
            want_z, want_mean, want_scale = instance_normalize(column)
            torch.testing.assert_close(z[b, seen, v], want_z[0, :, 0])
            torch.testing.assert_close(mean[b, 0, v], want_mean[0, 0, 0])
            torch.testing.assert_close(scale[b, 0, v], want_scale[0, 0, 0])
    assert torch.all(z[~observed] == 0)
    (gradient,) = torch.autograd.grad((z.square() * x + scale).sum(), spoiled)
    assert torch.isfinite(gradient).all()
    assert torch.all(gradient[~observed] == 0)


def test_variate_missing_throughout_is_finite():
    x = make_windows()
    x[:, :, 2] = torch.nan
    z, mean, scale = instance_normalize(x, ~x.isnan())
    assert torch.all(z[:, :, 2] == 0)
    assert torch.all(mean[:, :, 2] == 0)
    torch.testing.assert_close(scale[:, :, 2], torch.full((4, 1), 1e-5**0.5).double())
    # Without a mask a missing value is not repaired in silence.
    assert torch.isnan(instance_normalize(x)[0][:, :, 2]).all()


def test_constant_window_is_finite():
    z, mean, scale = instance_normalize(torch.full((1, 8, 1), 7.0))
    assert torch.all(z == 0)
    assert mean.item() == 7
    assert scale.item() == pytest.approx(1e-5**0.5)


@pytest.mark.parametrize("factor", [1e-30, 1e-8, 1.0, 1e8, 1e30, 1e36])
def test_extreme_scales_in_float32(factor):
    x = (make_windows(dtype=torch.float32) * factor).requires_grad_()
    z, mean, scale = instance_normalize(x)
    exact_z, exact_mean, exact_scale = instance_normalize(x.detach().double())
    torch.testing.assert_close(z.double(), exact_z, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(mean.double(), exact_mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(scale.double(), exact_scale, rtol=1e-5, atol=0)
    (gradient,) = torch.autograd.grad((z * z.detach().cos()).sum() + scale.sum(), x)
    assert torch.isfinite(gradient).all()
