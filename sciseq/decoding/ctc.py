r"""Connectionist temporal classification: paths, their sequences, and searches.

A path has one symbol per position; merging equal neighbours and then dropping blanks
gives its sequence. Axes: ``batch``, ``position`` (T), ``symbol`` (V, the blank among
them), ``beam``, ``state`` (of the lattice: a sequence of n tokens, with blanks around
and between them, has 2 n + 1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sciseq.errors import InputError

__all__ = [
    "best_alignment",
    "collapse",
    "ctc_loss",
    "forward_log_probs",
    "greedy_decode",
    "required_length",
]


def collapse(paths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Merge equal neighbours, then drop blanks.

    Parameters
    ----------
    paths : Tensor of int64, shape (..., position)
        Symbols.
    blank : int
        Symbol that stands for nothing.

    Returns
    -------
    tokens : Tensor of int64, shape (..., position)
        Sequences, filled with blanks at the end.
    lengths : Tensor of int64, shape (...)
        Number of tokens.

    Examples
    --------
    >>> import torch
    >>> tokens, lengths = collapse(torch.tensor([[1, 1, 0, 1, 2, 2]]), blank=0)
    >>> tokens.tolist(), lengths.tolist()
    ([[1, 1, 2, 0, 0, 0]], [3])
    """
    before = F.pad(paths[..., :-1], (1, 0), value=blank)
    is_token = (paths != blank) & (paths != before)
    order = is_token.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
    tokens = paths.where(is_token, blank).gather(-1, order)
    return tokens, is_token.sum(dim=-1)


def greedy_decode(log_probs: Tensor, blank: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Collapse the most probable path.

    .. math:: \hat\pi_t = \arg\max_s \log p_t(s)

    Parameters
    ----------
    log_probs : Tensor, shape (batch, position, symbol)
        Log-probabilities.
    blank : int
        Symbol that stands for nothing.

    Returns
    -------
    tokens : Tensor of int64, shape (batch, position)
        Sequences, filled with blanks at the end.
    lengths : Tensor of int64, shape (batch,)
        Number of tokens.
    scores : Tensor, shape (batch,)
        Log-probability of the path.

    Examples
    --------
    >>> import torch
    >>> log_probs = torch.tensor([[[0.6, 0.4], [0.3, 0.7]]]).log()
    >>> tokens, lengths, scores = greedy_decode(log_probs, blank=0)
    >>> tokens.tolist(), round(float(scores.exp()), 3)
    ([[1, 0]], 0.42)
    """
    _check_log_probs(log_probs, blank)
    best, path = log_probs.max(dim=-1)
    return *collapse(path, blank), best.sum(dim=-1)


def required_length(targets: Tensor, lengths: Tensor) -> Tensor:
    r"""Count the positions that a path to each sequence needs at least.

    .. math:: n + |\{i : y_i = y_{i+1}\}|

    Parameters
    ----------
    targets : Tensor of int64, shape (batch, token)
        Sequences; behind their end any symbols.
    lengths : Tensor of int64, shape (batch,)
        Number of tokens n.

    Returns
    -------
    Tensor of int64, shape (batch,)
        Positions: a blank is needed between equal neighbours.

    Examples
    --------
    >>> import torch
    >>> required_length(torch.tensor([[1, 1, 2]]), torch.tensor([3])).tolist()
    [4]
    """
    is_pair = targets[:, 1:] == targets[:, :-1]
    second = torch.arange(is_pair.shape[1], device=targets.device) + 1
    return lengths + (is_pair & (second < lengths.unsqueeze(1))).sum(dim=1)


def ctc_loss(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, *, blank: int
) -> tuple[Tensor, Tensor]:
    r"""Sum over all paths to a sequence, as a loss.

    .. math:: L = -\log \sum_{\pi \to y} \prod_t p_t(\pi_t)

    Parameters
    ----------
    log_probs : Tensor, shape (batch, position, symbol)
        Log-probabilities of a softmax; the gradient is right for no others.
    targets : Tensor of int64, shape (batch, token)
        Sequences without blanks; behind their end any symbols.
    lengths : Tensor of int64, shape (batch,)
        Number of tokens.
    blank : int
        Symbol that stands for nothing.

    Returns
    -------
    losses : Tensor, shape (batch,)
        Losses; 0, with a gradient of 0, where the sequence has no path.
    is_possible : Tensor of bool, shape (batch,)
        False where the sequence needs more positions than there are.

    Raises
    ------
    InputError
        When shapes disagree or the blank is no symbol.

    Notes
    -----
    Graves et al., ICML 2006. The sum is ``torch.nn.functional.ctc_loss``.

    Examples
    --------
    >>> import torch
    >>> log_probs = torch.full((2, 2, 3), 1 / 3).log()
    >>> targets, lengths = torch.tensor([[1, 0], [1, 1]]), torch.tensor([1, 2])
    >>> losses, is_possible = ctc_loss(log_probs, targets, lengths, blank=0)
    >>> is_possible.tolist(), round(float(losses[0].neg().exp()), 4)  # _1, 1_ and 11
    ([True, False], 0.3333)
    """
    _check_targets(log_probs, targets, lengths, blank)
    n_positions = log_probs.shape[1]
    losses = F.ctc_loss(
        log_probs.transpose(0, 1),
        targets,
        torch.full_like(lengths, n_positions),
        lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return losses, required_length(targets, lengths) <= n_positions


def forward_log_probs(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, *, blank: int
) -> Tensor:
    r"""Log-probability of all paths to each state of the lattice.

    .. math::

        \alpha_t(s) = p_t(y'_s) (\alpha_{t-1}(s) + \alpha_{t-1}(s-1)
        + [y'_s \ne \_ \wedge y'_s \ne y'_{s-2}]\, \alpha_{t-1}(s-2))

    with :math:`y' = \_\, y_1 \_\, y_2 \dots \_`.

    Parameters
    ----------
    log_probs, targets, lengths, blank
        As in :func:`ctc_loss`.

    Returns
    -------
    Tensor, shape (batch, position, state)
        Logarithms; states behind the end of a sequence mean nothing. The last two
        states of the last position hold the probability of the sequence.

    Raises
    ------
    InputError
        When shapes disagree or the blank is no symbol.

    Examples
    --------
    >>> import torch
    >>> log_probs = torch.full((1, 2, 3), 1 / 3).log()
    >>> alpha = forward_log_probs(
    ...     log_probs, torch.tensor([[1]]), torch.tensor([1]), blank=0
    ... )
    >>> [round(one, 4) for one in alpha[0, -1].exp().tolist()]
    [0.1111, 0.2222, 0.1111]
    """
    _check_targets(log_probs, targets, lengths, blank)
    emitted, may_skip = _lattice(log_probs, targets, blank)
    alpha = _first_states(emitted)
    rows = [alpha]
    for t in range(1, emitted.shape[1]):
        alpha = _ways(alpha, may_skip).logsumexp(dim=0) + emitted[:, t]
        rows.append(alpha)
    return torch.stack(rows, dim=1)


def best_alignment(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, *, blank: int
) -> tuple[Tensor, Tensor]:
    r"""Find the most probable path to each sequence.

    .. math:: \hat\pi = \arg\max_{\pi \to y} \sum_t \log p_t(\pi_t)

    Parameters
    ----------
    log_probs, targets, lengths, blank
        As in :func:`ctc_loss`.

    Returns
    -------
    paths : Tensor of int64, shape (batch, position)
        Symbols; blanks where the sequence has no path.
    scores : Tensor, shape (batch,)
        Log-probabilities of the paths, minus infinity where there is none.

    Raises
    ------
    InputError
        When shapes disagree or the blank is no symbol.

    Notes
    -----
    The oracle of glancing curricula, which reveal parts of it to a network.

    Examples
    --------
    >>> import torch
    >>> log_probs = torch.tensor([[[0.7, 0.3], [0.1, 0.9], [0.8, 0.2]]]).log()
    >>> paths, scores = best_alignment(
    ...     log_probs, torch.tensor([[1]]), torch.tensor([1]), blank=0
    ... )
    >>> paths.tolist(), round(float(scores.exp()), 3)
    ([[0, 1, 0]], 0.504)
    """
    _check_targets(log_probs, targets, lengths, blank)
    emitted, may_skip = _lattice(log_probs, targets, blank)
    best = _first_states(emitted)
    steps_back = []
    for t in range(1, emitted.shape[1]):
        best, step = _ways(best, may_skip).max(dim=0)
        best = best + emitted[:, t]
        steps_back.append(step)
    # A path ends in the last token or in the blank behind it.
    last = 2 * lengths
    ends = torch.stack([last, (last - 1).clamp(min=0)], dim=1)
    scores, which = best.gather(1, ends).max(dim=1)
    state = ends.gather(1, which.unsqueeze(1))
    states = [state]
    for step in reversed(steps_back):
        state = state - step.gather(1, state)
        states.append(state)
    extended = _with_blanks(targets, blank)
    paths = extended.gather(1, torch.cat(states[::-1], dim=1).clamp(min=0))
    return paths.where((scores > -torch.inf).unsqueeze(1), blank), scores


def _with_blanks(targets: Tensor, blank: int) -> Tensor:
    """Return y' (batch, state)."""
    blanks = torch.full_like(targets, blank)
    return F.pad(torch.stack([blanks, targets], dim=2).flatten(1), (0, 1), value=blank)


def _lattice(log_probs: Tensor, targets: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities (batch, position, state), and where s-2 may be left for s."""
    extended = _with_blanks(targets, blank)
    index = extended.unsqueeze(1).expand(-1, log_probs.shape[1], -1)
    before = F.pad(extended, (2, 0), value=blank)[:, :-2]
    return log_probs.gather(2, index), (extended != blank) & (extended != before)


def _first_states(emitted: Tensor) -> Tensor:
    """Start a path with the first blank or the first token."""
    state = torch.arange(emitted.shape[2], device=emitted.device)
    return emitted[:, 0].where(state < 2, -torch.inf)


def _ways(values: Tensor, may_skip: Tensor) -> Tensor:
    """Return what comes from s, s-1 and s-2: shape (3, batch, state)."""
    by_one = F.pad(values, (1, 0), value=-torch.inf)[:, :-1]
    by_two = F.pad(values, (2, 0), value=-torch.inf)[:, :-2]
    return torch.stack([values, by_one, by_two.where(may_skip, -torch.inf)])


def _check_log_probs(log_probs: Tensor, blank: int) -> None:
    if (
        log_probs.ndim != 3
        or not 0 <= blank < log_probs.shape[2]
        or not log_probs.shape[1]
    ):
        raise InputError(
            f"log_probs has shape {tuple(log_probs.shape)} and blank is {blank}; "
            "(batch, position, symbol) is needed with one position or more and the "
            "blank among the symbols",
            where="log_probs",
        )


def _check_targets(
    log_probs: Tensor, targets: Tensor, lengths: Tensor, blank: int
) -> None:
    _check_log_probs(log_probs, blank)
    n_batch = log_probs.shape[0]
    if targets.ndim != 2 or len(targets) != n_batch or lengths.shape != (n_batch,):
        raise InputError(
            f"targets has shape {tuple(targets.shape)} and lengths "
            f"{tuple(lengths.shape)}, log_probs a batch of {n_batch}; (batch, token) "
            "and (batch,) are needed",
            where="targets",
        )
