"""What some independent draws tell of a mean.

Axes: ``draw`` (n), ``batch`` (B).
"""

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["mean_and_error"]


def mean_and_error(draws: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the means of draws and their standard errors.

    Parameters
    ----------
    draws : iterable of Tensor, shape (batch,)
        Independent estimates.

    Returns
    -------
    mean, error : Tensor, shape (batch,)
        The error of a single draw is not a number: nothing is known of it.

    Examples
    --------
    >>> import torch
    >>> mean_and_error([torch.tensor([1.0]), torch.tensor([3.0])])
    (tensor([2.]), tensor([1.]))
    >>> mean_and_error([torch.tensor([1.0])])
    (tensor([1.]), tensor([nan]))
    """
    values = torch.stack(list(draws))
    mean = values.mean(dim=0)
    if len(values) == 1:
        return mean, torch.full_like(mean, torch.nan)
    return mean, values.std(dim=0) / len(values) ** 0.5
