"""Random numbers of a request that depend on its seed and on counters, on nothing else.

A generator with a state gives a row other numbers when the batch around it changes.
Here every number is a hash of (seed, counters): the row's own seed, the step, the
position and whatever else tells two uses apart. The batch, the order of calls and the
device do not matter.

Axes: ``batch`` (requests), then those of the counters.
"""

import numpy as np
import torch
from torch import Tensor

from sciseq.errors import InputError, InputTypeError

__all__ = ["content_keys", "gumbel", "uniform"]

N_BITS = 52  # of a number; with one more, the largest would round to 1


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned word."""
    return word - (1 << 64) if word >> 63 else word


# The multipliers and the increment of splitmix64. Products of int64 wrap around, as
# they do modulo 2^64.
MULTIPLIERS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
INCREMENT = _signed(0x9E3779B97F4A7C15)


def uniform(seeds: Tensor, *counters: Tensor | int) -> Tensor:
    r"""Draw numbers that are uniform in the open interval (0, 1).

    .. math::
        h_0 = m(s + g), \quad h_j = m(h_{j-1} + c_j + g), \quad
        u = 2^{-52} \left(\lfloor m(m(h_k) + g) / 2^{12} \rfloor + \tfrac12\right)

    with the finaliser :math:`m` and the increment :math:`g` of splitmix64, modulo
    :math:`2^{64}`: every key passes at least three finalisers.

    Parameters
    ----------
    seeds : Tensor of int64, shape (batch,) or (batch, 1, ...)
        Seed s of each request.
    *counters : Tensor of int64 or int
        Keys :math:`c_1 \dots c_k` in an order that matters, for instance step and
        position. They broadcast with each other; their first axis, if they have any, is
        the batch, or of length 1. Seeds get axes at the end until they have as many.

    Returns
    -------
    Tensor of float64, shape (batch, ...)
        Numbers from :math:`2^{-53}` to :math:`1 - 2^{-53}`.

    Raises
    ------
    InputTypeError
        When a key is no integer of 64 bits.
    InputError
        When the shapes do not fit.

    References
    ----------
    Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (numbers from
    counters; the hash is another).

    Examples
    --------
    >>> import torch
    >>> position = torch.arange(3).unsqueeze(0)  # (1, token)
    >>> both = uniform(torch.tensor([7, 8]), 0, position)
    >>> both.shape
    torch.Size([2, 3])
    >>> alone = uniform(torch.tensor([8]), 0, position)
    >>> bool((both[1] == alone[0]).all())
    True
    """
    return _to_unit(_hash(*_aligned(seeds, counters)))


def gumbel(seeds: Tensor, *counters: Tensor | int) -> Tensor:
    r"""Draw numbers of the standard Gumbel law, in float64.

    .. math:: G = -\log(-\log u)

    The position of the largest :math:`\log p_i + G_i` has the law p.

    Parameters
    ----------
    seeds : Tensor of int64, shape (batch,) or (batch, 1, ...)
        As for :func:`uniform`.
    *counters : Tensor of int64 or int
        As for :func:`uniform`.

    Returns
    -------
    Tensor of float64, shape (batch, ...)
        Finite numbers, from -3.61 to 36.74. In float32 the upper tail would be cut at
        16.6, which acts like a lower temperature.

    Examples
    --------
    >>> import torch
    >>> noise = gumbel(torch.tensor([7]), torch.arange(4).unsqueeze(0))
    >>> noise.shape, noise.dtype
    (torch.Size([1, 4]), torch.float64)
    """
    return -torch.log(-torch.log(uniform(seeds, *counters)))


def content_keys(tokens: Tensor) -> Tensor:
    r"""Return a key of each sequence that depends on its tokens alone.

    .. math:: k = \sum_i (x_i + 1) a^i \mod 2^{64}

    With it as a counter, equal sequences have equal noise, wherever they stand.

    Parameters
    ----------
    tokens : Tensor of int64, shape (batch, position)
        Sequences.

    Returns
    -------
    Tensor of int64, shape (batch,)

    Examples
    --------
    >>> import torch
    >>> a, b = content_keys(torch.tensor([[1, 2], [2, 1]]))
    >>> bool(a == b)
    False
    """
    powers, power = [], 1
    for _ in range(tokens.shape[1]):
        power = power * MULTIPLIERS[0] % 2**64
        powers.append(_signed(power))
    factors = torch.tensor(powers, dtype=torch.int64, device=tokens.device)
    return ((tokens + 1) * factors).sum(dim=1)


def _aligned(
    seeds: Tensor, counters: tuple[Tensor | int, ...]
) -> tuple[Tensor, list[Tensor | int]]:
    """Seeds with the axes of the counters; raise when keys do not fit."""
    shapes = []
    for name, key in [("seeds", seeds), *(("counters", one) for one in counters)]:
        if isinstance(key, int):
            continue
        if key.dtype != torch.int64:
            raise InputTypeError(
                f"{name} are {key.dtype}; keys must be torch.int64", where=name
            )
        shapes.append(key.shape)
    if not seeds.dim():
        raise InputError("seeds are a single number; one per request", where="seeds")
    rank = max(len(shape) for shape in shapes)
    seeds = seeds.reshape(seeds.shape + (1,) * (rank - seeds.dim()))
    try:
        shape = np.broadcast_shapes(seeds.shape, *shapes[1:])
    except ValueError:
        shape = ()
    if shape[:1] != seeds.shape[:1]:
        raise InputError(
            f"seeds are {tuple(shapes[0])}, counters "
            f"{[tuple(one) for one in shapes[1:]]}; they must broadcast, and the first "
            "axis of each counter is the batch or of length 1",
            where="counters",
            hint="Give positions as (1, token), steps of requests as (batch, 1).",
        )
    return seeds, [_signed(c % 2**64) if isinstance(c, int) else c for c in counters]


def _hash(seeds: Tensor, counters: list[Tensor | int]) -> Tensor:
    """Random bits of keys that broadcast."""
    state = _finalise(seeds + INCREMENT)
    for counter in counters:
        # The earlier keys passed a finaliser, so that a sum of keys tells nothing.
        state = _finalise(state + counter + INCREMENT)
    return _finalise(_finalise(state) + INCREMENT)


def _finalise(word: Tensor) -> Tensor:
    """Mix the bits of words, one to one."""
    # In place behind the first copy: it halves the time for large tensors.
    word = (word ^ _shift_right(word, 30)).mul_(MULTIPLIERS[0])
    word = word.bitwise_xor_(_shift_right(word, 27)).mul_(MULTIPLIERS[1])
    return word.bitwise_xor_(_shift_right(word, 31))


def _shift_right(word: Tensor, n: int) -> Tensor:
    """Shift zeros in from the left, where ``>>`` of int64 repeats the sign."""
    return (word >> n).bitwise_and_((1 << (64 - n)) - 1)


def _to_unit(word: Tensor) -> Tensor:
    """Numbers in the open interval (0, 1) from random bits."""
    bits = _shift_right(word, 64 - N_BITS)
    return bits.to(torch.float64).add_(0.5).mul_(2.0**-N_BITS)
