"""What is given and what is legal, as rows of tokens: templates and allowed tokens.

Axes: ``batch``, ``position`` (L), ``token`` (V).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciseq.errors import InputError, InputTypeError
from sciseq.generation.alphabet import Alphabet
from sciseq.parameters import Integer

__all__ = [
    "check_given",
    "legal_in_gaps",
    "legal_tokens",
    "template_rows",
    "without_early_ends",
]

# What a sequence of tokens may be, where a token may be a string.
_SEQUENCES = (list, tuple, np.ndarray)


def template_rows(alphabet: Alphabet, template: Any) -> Tensor | None:
    """Return encoded templates (template, position), -1 at gaps.

    Parameters
    ----------
    alphabet : Alphabet
        Tokens.
    template : sequence with gaps, a list of them, or None
        As in :meth:`sample`.
    """
    if template is None:
        return None
    templates: Any
    if alphabet.kind == "array":
        templates = np.atleast_2d(np.asarray(template))
    else:
        is_one = isinstance(template, str) or (
            alphabet.kind == "list"
            and hasattr(template, "__iter__")
            and not any(isinstance(one, _SEQUENCES) for one in template)
        )
        templates = [template] if is_one else template
    rows = alphabet.encode(templates, gap=-1)
    if alphabet.end is not None:  # what follows the template is open
        for row, one in zip(rows, templates, strict=True):
            row[len(one) :] = -1
    return torch.from_numpy(rows)


def legal_tokens(alphabet: Alphabet, allowed: Any) -> Tensor | None:
    """Return legal tokens, bool of shape (position, token).

    Parameters
    ----------
    alphabet : Alphabet
        Tokens and positions.
    allowed : sequence of tokens, dict of int to tokens, or None
        As in :meth:`sample`.

    Raises
    ------
    InputError
        For a position or a token that there is not.
    """
    if allowed is None:
        return None
    if isinstance(allowed, Mapping):
        for place in allowed:
            if not (Integer(0).allows(place) and place < alphabet.n_positions):
                raise InputError(
                    f"position {place!r} is none of the {alphabet.n_positions}",
                    where="allowed",
                    hint="Positions are counted from 0.",
                )
    elif not hasattr(allowed, "__len__"):
        raise InputTypeError(
            f"allowed is {allowed!r}, must be tokens, or a dict of positions to tokens",
            where="allowed",
        )
    everywhere = allowed if not isinstance(allowed, Mapping) else None
    by_position = allowed if isinstance(allowed, Mapping) else {}
    legal = torch.ones(alphabet.n_positions, alphabet.n_tokens, dtype=torch.bool)
    numbers = {one: i for i, one in enumerate(alphabet.tokens)}
    for place in range(alphabet.n_positions):
        tokens = by_position.get(place, everywhere)
        if tokens is None:
            continue
        unknown = [one for one in tokens if one not in numbers]
        if unknown or not len(tokens):
            raise InputError(
                f"allowed tokens {list(tokens)!r} are unknown or none",
                where=f"allowed, position {place}",
                hint=f"Tokens of fit: {list(alphabet.tokens)[:20]!r}.",
            )
        legal[place] = False
        legal[place, [numbers[one] for one in tokens]] = True
        if alphabet.end is not None:  # sequences may end, unless told otherwise
            legal[place, alphabet.end] = everywhere is not None
    return legal


def check_given(alphabet: Alphabet, rows: Tensor, legal: Tensor | None) -> None:
    """Raise unless what is given is legal.

    Parameters
    ----------
    alphabet : Alphabet
        Tokens and their end.
    rows : Tensor of int64, shape (batch, position)
        Sequences, -1 at gaps.
    legal : Tensor of bool, shape (position, token), or None
        Legal tokens.

    Raises
    ------
    InputError
        For a given token that is not legal at its position.
    """
    if legal is None:
        return
    is_token = (rows >= 0) & (rows != (-1 if alphabet.end is None else alphabet.end))
    place = torch.arange(rows.shape[1])
    is_wrong = is_token & ~legal[place, rows.clamp_min(0)]
    if bool(is_wrong.any()):
        row, at = is_wrong.nonzero()[0].tolist()
        raise InputError(
            f"sequence {row} gives {alphabet.tokens[int(rows[row, at])]!r} at position "
            f"{at}, which is not legal there",
            where="template, allowed",
            hint="Leave the position open, or allow what is given.",
        )


def legal_in_gaps(
    alphabet: Alphabet, rows: Tensor, legal: Tensor | None
) -> Tensor | None:
    """Return legal tokens (position, token) of gaps, which are tokens and no ends.

    Parameters
    ----------
    alphabet : Alphabet
        Tokens and their end.
    rows : Tensor of int64, shape (batch, position)
        Sequences, -1 at gaps.
    legal : Tensor of bool, shape (position, token), or None
        Legal tokens otherwise.

    Raises
    ------
    InputError
        For a gap where nothing is left.
    """
    if alphabet.end is None:
        return legal
    if legal is None:
        legal = torch.ones(rows.shape[1], alphabet.n_tokens, dtype=torch.bool)
    legal = legal.clone()
    legal[:, alphabet.end] = False
    is_stuck = (rows < 0).any(dim=0) & ~legal.any(dim=1)
    if bool(is_stuck.any()):
        raise InputError(
            f"no token is legal at position {int(is_stuck.nonzero()[0])}",
            where="X",
            hint="End the sequences before it.",
        )
    return legal


def without_early_ends(
    alphabet: Alphabet, tokens: Tensor, legal: Tensor | None
) -> Tensor | None:
    """Return legal tokens (batch or 1, position, token): an end cuts off nothing given.

    Parameters
    ----------
    alphabet : Alphabet
        Tokens and their end.
    tokens : Tensor of int64, shape (batch, position)
        What is given, -1 at gaps.
    legal : Tensor of bool, shape (position, token), or None
        Legal tokens as asked for.
    """
    end = alphabet.end
    is_given = (tokens >= 0) & (tokens != (-1 if end is None else end))
    if end is None or not bool(is_given.any()):
        return None if legal is None else legal.unsqueeze(0)
    if legal is None:
        legal = torch.ones(tokens.shape[1], alphabet.n_tokens).bool()
    last = is_given.flip(1).cumsum(dim=1).flip(1) > 0  # given here, or behind
    legal = legal.to(tokens.device).repeat(len(tokens), 1, 1)
    legal[:, :, end] &= ~last
    return legal
