"""What masks and selections share: the largest values of each row, and checks.

Axes: ``batch`` (rows), ``token``.
"""

import torch
from torch import Tensor

from sciseq.errors import InputError, InputTypeError

__all__ = ["check_range", "check_rows", "check_table", "largest"]


def largest(allowed: Tensor, count: Tensor, values: Tensor) -> Tensor:
    """Choose the largest values of each row.

    Parameters
    ----------
    allowed : Tensor of bool, shape (batch, token)
        What can be chosen.
    count : Tensor of int64, shape (batch,)
        How many; where fewer are allowed, all of them.
    values : Tensor, shape (batch, token)
        Numbers above minus infinity where ``allowed``, anything elsewhere.

    Returns
    -------
    Tensor of bool, shape (batch, token)
        The chosen ones. Of equal values the first is chosen first, so that the count is
        exact even then.

    Examples
    --------
    >>> import torch
    >>> allowed = torch.tensor([[True, True, True, False]])
    >>> values = torch.tensor([[1.0, 2.0, 1.0, 9.0]])
    >>> largest(allowed, torch.tensor([2]), values).tolist()
    [[True, True, False, False]]
    """
    values = values.where(allowed, -torch.inf)
    order = values.argsort(dim=1, descending=True, stable=True)
    return allowed & (order.argsort(dim=1) < count.unsqueeze(1))


def check_table(name: str, table: Tensor, **others: Tensor) -> None:
    """Raise when ``table`` is not bool (batch, token), or others have another shape.

    Examples
    --------
    >>> import torch
    >>> check_table("maskable", torch.tensor([True]))
    Traceback (most recent call last):
    sciseq.errors.InputError: maskable is (1,); ... (batch, token) (at: maskable)
    """
    if table.dtype != torch.bool:
        raise InputTypeError(f"{name} is {table.dtype}; must be torch.bool", where=name)
    if table.dim() != 2:
        raise InputError(
            f"{name} is {tuple(table.shape)}; its axes must be (batch, token)",
            where=name,
        )
    for key, other in others.items():
        if other.shape != table.shape:
            raise InputError(
                f"{key} is {tuple(other.shape)} and {name} {tuple(table.shape)}; they "
                "must have the same shape",
                where=key,
            )


def check_rows(table: Tensor, **others: Tensor) -> None:
    """Raise when others have not one value per row of ``table``.

    Examples
    --------
    >>> import torch
    >>> check_rows(torch.zeros(3, 2), count=torch.zeros(2))
    Traceback (most recent call last):
    sciseq.errors.InputError: count is (2,); must be (3,), one per row (at: count)
    """
    for key, other in others.items():
        if other.shape != table.shape[:1]:
            raise InputError(
                f"{key} is {tuple(other.shape)}; must be ({len(table)},), one per row",
                where=key,
            )


def check_range(name: str, value: Tensor, low: Tensor, high: Tensor) -> None:
    """Raise when a value (batch,) is not between those of its row.

    Examples
    --------
    >>> import torch
    >>> n = torch.tensor([1, 3])
    >>> check_range("count", torch.tensor([1, 4]), 0 * n, n)
    Traceback (most recent call last):
    sciseq.errors.InputError: count is 4 in row 1; 0 to 3 are possible (at: count)
    """
    is_bad = (value < low) | (value > high)
    if is_bad.any():
        row = int(is_bad.to(torch.uint8).argmax())
        raise InputError(
            f"{name} is {int(value[row])} in row {row}; {int(low[row])} to "
            f"{int(high[row])} are possible",
            where=name,
        )
