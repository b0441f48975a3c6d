"""Codes of real numbers, such as masses, in sines and cosines.

Axes: ``...`` (any), ``d_model`` (D).
"""

import math

import torch
from torch import Tensor

from sciseq.errors import InputError

__all__ = ["encode_floats"]


def encode_floats(
    x: Tensor,
    d_model: int,
    *,
    shortest: float = 0.001,
    longest: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    r"""Write numbers as sines and cosines of wavelengths in geometric progression.

    .. math::

        \lambda_k = \lambda_{min} (\lambda_{max} / \lambda_{min})^{k / (D/2 - 1)}, \quad
        code = [\sin(2 \pi x / \lambda_k), \cos(2 \pi x / \lambda_k)]_{k < D/2}

    Parameters
    ----------
    x : Tensor of float64, any shape
        The numbers. In float32 the shortest waves of a mass above 1000 Da would be
        rounding errors.
    d_model : int
        Width D of a code; an even number, at least 4.
    shortest, longest : float
        Shortest and longest wavelength, in the unit of ``x``.
    dtype : torch.dtype, default float32
        Of the result.

    Returns
    -------
    Tensor, shape (..., d_model)
        Sines, then cosines.

    Raises
    ------
    InputError
        When ``x`` is not float64, or ``d_model`` is odd or below 4.

    Notes
    -----
    Card: peptide §3. The phase is taken modulo one turn in float64; what is left needs
    no more digits than ``dtype`` has.

    Examples
    --------
    >>> import torch
    >>> code = encode_floats(torch.tensor([0.25], dtype=torch.float64), 4, shortest=1.0)
    >>> [abs(round(value, 3)) for value in code[0].tolist()]
    [1.0, 0.0, 0.0, 1.0]
    """
    if x.dtype != torch.float64:
        raise InputError(f"x is {x.dtype}, must be float64", where="encode_floats")
    if d_model < 4 or d_model % 2:
        raise InputError(
            f"d_model is {d_model}, must be even and at least 4", where="encode_floats"
        )
    half = d_model // 2
    powers = torch.arange(half, dtype=torch.float64, device=x.device) / (half - 1)
    turns = x.unsqueeze(-1) / (shortest * (longest / shortest) ** powers)
    angle = ((turns - turns.round()) * (2 * math.pi)).to(dtype)
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
