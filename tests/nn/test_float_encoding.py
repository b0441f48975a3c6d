"""Codes of real numbers."""

import math

import pytest
import torch

from sciseq.errors import InputError
from sciseq.nn.float_encoding import encode_floats


def by_hand(x, d_model, shortest, longest):
    half = d_model // 2
    waves = [shortest * (longest / shortest) ** (k / (half - 1)) for k in range(half)]
    angles = [2 * math.pi * x / wave for wave in waves]
    return [math.sin(one) for one in angles] + [math.cos(one) for one in angles]


def test_equals_the_formula_for_large_masses():
    masses = [0.0, 57.021464, 1999.123456, 5000.987654]
    codes = encode_floats(
        torch.tensor(masses, dtype=torch.float64), 16, dtype=torch.float64
    )
    wanted = [by_hand(one, 16, 0.001, 10_000.0) for one in masses]
    torch.testing.assert_close(
        codes, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-8
    )


def test_float32_keeps_the_shortest_waves():
    mass = torch.tensor([1999.1203], dtype=torch.float64)
    exact = encode_floats(mass, 16, dtype=torch.float64)
    code = encode_floats(mass, 16)
    assert (code.double() - exact).abs().max() < 1e-6
    # The phase of a mass in float32 is lost.
    rounded = encode_floats(mass.float().double(), 16, dtype=torch.float64)
    assert (rounded - exact).abs().max() > 0.1


def test_refuses_float32_and_odd_widths():
    with pytest.raises(InputError, match="float64"):
        encode_floats(torch.zeros(1), 8)
    with pytest.raises(InputError, match="even"):
        encode_floats(torch.zeros(1, dtype=torch.float64), 7)
