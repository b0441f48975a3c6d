"""Normalisation of a window by its own statistics.

Axes: ``batch``, ``time`` (look-back L), ``variate`` (V).
"""

import torch
from torch import Tensor

__all__ = ["instance_normalize"]

_EPSILON = 1e-5


def instance_normalize(
    x: Tensor, observed: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    r"""Centre and scale each series of each window by its own mean and deviation.

    .. math::

        \mu = \mathrm{mean}_t X, \quad
        \sigma = \sqrt{\mathrm{var}_t(X) + 10^{-5}}, \quad
        Z = (X - \mu) / \sigma

    Parameters
    ----------
    x : Tensor, shape (batch, time, variate)
        Windows.
    observed : bool Tensor, shape (batch, time, variate), optional
        False where a value is missing. Statistics are those of the observed values;
        what ``x`` holds elsewhere, NaN included, has no effect.

    Returns
    -------
    z : Tensor, shape (batch, time, variate)
        Normalised windows, zero where unobserved.
    mean : Tensor, shape (batch, 1, variate)
        Means, without gradient. Zero for a variate that is missing throughout.
    scale : Tensor, shape (batch, 1, variate)
        Biased standard deviations with 1e-5 inside the root, with gradient.

    Notes
    -----
    Card: forecasting §0.1 (reversible instance normalisation without affine weights).
    Undo it on a forecast by ``y * scale + mean``. The squares are taken relative to
    the largest deviation, so values up to 1e37 in float32 do not overflow.

    Examples
    --------
    >>> import torch
    >>> z, mean, scale = instance_normalize(torch.tensor([[[1.0], [3.0]]]))
    >>> mean.item(), round(scale.item(), 4), [round(v, 4) for v in z.flatten().tolist()]
    (2.0, 1.0, [-1.0, 1.0])
    """
    if observed is None:
        observed = torch.ones_like(x, dtype=torch.bool)
    x = torch.where(observed, x, 0.0)
    count = observed.sum(1, keepdim=True).clamp(min=1)
    mean = (x.sum(1, keepdim=True) / count).detach()
    deviation = torch.where(observed, x - mean, 0.0)
    unit = deviation.detach().abs().amax(1, keepdim=True).clamp(min=1.0)
    variance = (deviation / unit).square().sum(1, keepdim=True) / count
    scale = unit * torch.sqrt(variance + _EPSILON / unit / unit)
    return deviation / scale, mean, scale
