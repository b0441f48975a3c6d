"""What a call of a generator asks for: how many, in which parts, how tokens are drawn.

Axes: n sequences, ``batch`` (of a part), L positions.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from sciseq.errors import CapabilityError, InputError
from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.network import Condition
from sciseq.parameters import AnyOf, Integer, Nothing, Real, Rule

__all__ = [
    "TOGETHER",
    "check_counts",
    "make_drawing",
    "no_conditions",
    "request_parts",
    "request_seeds",
]

_DRAWING_RULES: dict[str, Rule] = {
    "temperature": Real(0.0),
    "top_k": AnyOf(Nothing(), Integer(1)),
    "top_p": Real(0.0, 1.0, open_low=True),
}

_COLDEST = 1e-200

TOGETHER = 256
"""Requests that are generated together, and sequences that are scored together."""


def request_seeds(seed: int, numbers: Tensor) -> Tensor:
    """Return seeds of requests: of their number, whatever else is generated.

    Parameters
    ----------
    seed : int
        Seed of the call.
    numbers : Tensor of int64, shape (batch,)
        Numbers of the requests, from 0 to below 2^31.
    """
    # Seeds of 32 bits and more differ, too.
    mixed = (seed ^ ((seed >> 31) * 0x9E3779B1)) % 2**31
    return numbers + mixed * 2**31


def request_parts(
    n: int, rows: Tensor, condition: Condition | None
) -> Iterator[tuple[Tensor, Tensor, Condition | None]]:
    """Give numbers of n requests in parts, with the rows and conditions of each.

    Parameters
    ----------
    n : int
        Requests.
    rows : Tensor of int64, shape (1 or n, position)
        Templates, one for all or one for each.
    condition : Condition or None
        The same.
    """
    for first in range(0, n, TOGETHER):
        numbers = torch.arange(first, min(first + TOGETHER, n))
        of = None
        if condition is not None:
            of = condition.take(numbers % len(condition.rows))
        yield numbers, rows[numbers % len(rows)], of


def no_conditions() -> CapabilityError:
    """Return what is raised for conditions that fit has not seen."""
    return CapabilityError(
        "this generator was fitted without conditions",
        where="condition",
        hint="Fit with y.",
    )


def check_counts(n: Any, **sizes: int) -> None:
    """Raise unless there is one of each for all n sequences, or one for each.

    Parameters
    ----------
    n : int
        Sequences.
    **sizes : int
        How many there are, by what they are.
    """
    if not Integer(1).allows(n) or any(size not in (1, n) for size in sizes.values()):
        given = " and ".join(f"{size} {name}" for name, size in sizes.items())
        raise InputError(
            f"{n!r} sequences, with {given}",
            where="n",
            hint="Give one for all, or one for each sequence.",
        )


def make_drawing(temperature: float, top_k: int | None, top_p: float) -> Drawing:
    """Return how tokens are drawn, or raise what is wrong with it.

    Parameters
    ----------
    temperature, top_k, top_p
        As in :meth:`sample`.
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    problems = [
        f"{name}={value!r} must be {_DRAWING_RULES[name].describe()}"
        for name, value in given.items()
        if not _DRAWING_RULES[name].allows(value)
    ]
    if problems:
        raise InputError("; ".join(problems), where="sample")
    # Below, quotients overflow: the best token is meant.
    temperature = float(temperature) if temperature > _COLDEST else 0.0
    return Drawing(temperature, top_k, float(top_p))
