"""Seeds: from scikit-learn's ``random_state`` to independent torch generators.

Every random draw of a fit comes from a generator named by ``(seed, stream)``, where the
stream says what is drawn and when, such as ``("shuffle", epoch)``. A run can therefore
be resumed at any epoch from the seed alone, and no global random state is involved.
"""

import hashlib
import json
import operator
import secrets
from typing import TYPE_CHECKING

import numpy as np

from sciseq.errors import InputError, InputTypeError

if TYPE_CHECKING:
    import torch

__all__ = ["generator_for", "resolve_seed"]

_SEED_RANGE = 2**32  # what NumPy's RandomState, and so scikit-learn, accepts as a seed


def resolve_seed(
    random_state: int | np.random.RandomState | np.random.Generator | None,
) -> int:
    """Return the integer seed that ``random_state`` stands for.

    Parameters
    ----------
    random_state : int, numpy.random.RandomState, numpy.random.Generator or None
        A non-negative integer is the seed itself. A NumPy random source gives one draw
        and moves on, so that a second fit with it differs, as in scikit-learn. None
        takes fresh entropy from the operating system.

    Returns
    -------
    int
        Non-negative seed; below 2**32 unless a larger integer was given.

    Raises
    ------
    InputError
        When the integer is negative.
    InputTypeError
        When ``random_state`` is of another type, including the module
        ``numpy.random``, whose global state sciseq never touches.

    Examples
    --------
    >>> resolve_seed(7)
    7
    >>> import numpy as np
    >>> resolve_seed(np.random.default_rng(0)) == resolve_seed(np.random.default_rng(0))
    True
    """
    if random_state is None:
        return secrets.randbelow(_SEED_RANGE)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(0, _SEED_RANGE, dtype=np.uint32))
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(_SEED_RANGE))
    try:
        seed = operator.index(random_state)
    except TypeError:
        raise InputTypeError(
            f"random_state is {random_state!r} of type {type(random_state).__name__}; "
            "allowed are None, a non-negative int, numpy.random.RandomState and "
            "numpy.random.Generator",
            where="random_state",
            hint="Give an int for repeatable results.",
        ) from None
    if seed < 0:
        raise InputError(
            f"random_state is {seed}, must be at least 0",
            where="random_state",
            hint="Give a non-negative int.",
        )
    return seed


def generator_for(
    seed: int, *stream: int | str, device: "torch.device | str" = "cpu"
) -> "torch.Generator":
    """Return a new torch generator that belongs to ``(seed, stream)`` alone.

    Parameters
    ----------
    seed : int
        Seed of the fit, from :func:`resolve_seed`.
    *stream : int or str
        What the generator is for, such as ``"shuffle", 3``.
    device : torch.device or str, default="cpu"
        Device of the generator. Initial weights are best drawn on the CPU and moved,
        so that they agree between devices.

    Returns
    -------
    torch.Generator
        The same numbers for the same arguments, in every process and Python version;
        other arguments give numbers that have nothing in common with these.

    Notes
    -----
    The state comes from the first 63 bits of a SHA-256 over seed and stream. Adding
    stream numbers to the seed would not do: epoch 1 of seed 0 would then repeat epoch 0
    of seed 1.

    Examples
    --------
    >>> import torch
    >>> first = torch.rand(3, generator=generator_for(0, "shuffle", 1))
    >>> again = torch.rand(3, generator=generator_for(0, "shuffle", 1))
    >>> torch.equal(first, again)
    True
    """
    import torch

    # JSON keeps 1 apart from "1", and ("ab", "c") apart from ("a", "bc").
    text = json.dumps([int(seed), *stream])
    digest = hashlib.sha256(text.encode()).digest()
    state = int.from_bytes(digest[:8], "big") >> 1
    return torch.Generator(device=device).manual_seed(state)
