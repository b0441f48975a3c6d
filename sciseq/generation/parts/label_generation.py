"""Generation of labels from the state of a recurrence, one for each request at a time.

Axes: ``batch`` (requests), ``row`` (of prompts), ``slot`` (labels in the order in which
they are written), ``position`` (of sequences).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sciseq.generation.parts.drawing import Drawing
from sciseq.generation.parts.gated_recurrence import RecurrentState
from sciseq.generation.parts.prefix_network import PrefixNetwork
from sciseq.generation.parts.recall_objectives import RecallVocabulary
from sciseq.generation.parts.recall_rows import (
    BoolArray,
    IntegerArray,
    RecallRow,
    collate_rows,
)
from sciseq.generation.parts.requests import Requests, Work, is_counted

__all__ = ["Prompt", "continuation", "generate_labels", "infilling", "make_prompts"]

_SEPARATOR = -1  # a slot that holds no token of the sequence


class Prompt(NamedTuple):
    """What is read before generation, and where its labels belong.

    Parameters
    ----------
    inputs : ndarray of int64, shape (n,)
        The prefix.
    labels : ndarray of int64, shape (m,)
        Labels that are known, read behind BEGIN.
    places : ndarray of int64, shape (slot,)
        Position of each label to come; -1 for a separator.
    """

    inputs: IntegerArray
    labels: IntegerArray
    places: IntegerArray


def continuation(
    given: IntegerArray, n_positions: int, words: RecallVocabulary, *, as_input: bool
) -> Prompt:
    """Ask for what follows the beginning of a sequence.

    Parameters
    ----------
    given : ndarray of int64, shape (n,)
        The beginning; it may be empty.
    n_positions : int
        Positions of the whole sequence.
    words : RecallVocabulary
        Ids.
    as_input : bool
        Read it in the prefix, or as labels, from left to right.

    Examples
    --------
    >>> given, words = np.array([2, 0]), RecallVocabulary(3)
    >>> prompt = continuation(given, 4, words, as_input=True)
    >>> prompt.inputs.tolist(), prompt.labels.tolist(), prompt.places.tolist()
    ([9, 2, 0], [], [2, 3])
    >>> continuation(given, 4, words, as_input=False).labels.tolist()
    [2, 0]
    """
    places = np.arange(len(given), n_positions)
    if as_input and len(given):
        paradigm = [words.paradigm("prefix_lm")]
        return Prompt(np.append(paradigm, given), given[:0], places)
    return Prompt(np.array([words.paradigm("next_token")]), given, places)


def infilling(
    tokens: IntegerArray, is_gap: BoolArray, words: RecallVocabulary
) -> Prompt:
    """Ask for what stands in the gaps of a sequence.

    Parameters
    ----------
    tokens : ndarray of int64, shape (position,)
        A sequence, anything in its gaps.
    is_gap : ndarray of bool, shape (position,)
        True at gaps.
    words : RecallVocabulary
        Ids.

    Examples
    --------
    >>> tokens, is_gap = np.array([2, 0, 0, 1, 0]), np.array([0, 1, 1, 0, 1], bool)
    >>> prompt = infilling(tokens, is_gap, RecallVocabulary(3))
    >>> prompt.inputs.tolist(), prompt.places.tolist()
    ([10, 2, 6, 1, 6], [1, 2, -1, 4])
    """
    is_first = is_gap & ~np.append(False, is_gap[:-1])
    visible = np.where(is_gap, words.mask, tokens)[~is_gap | is_first]
    places = np.flatnonzero(is_gap)
    borders = np.flatnonzero(is_first[places])[1:]
    inputs = np.append([words.paradigm("infilling")], visible)
    return Prompt(inputs, tokens[:0], np.insert(places, borders, _SEPARATOR))


def make_prompts(
    requests: Requests, words: RecallVocabulary, *, by_objectives: bool
) -> list[Prompt]:
    """Say of every request what is read, and what is written.

    Parameters
    ----------
    requests : Requests
        With a gap each.
    words : RecallVocabulary
        Ids.
    by_objectives : bool
        Ask for gaps at the end as prefix language modelling does, and for others as
        infilling does, so that all that is given is read first. Otherwise everything is
        read from left to right.
    """
    is_read = is_counted(requests.tokens, requests.end).cpu().numpy()
    filled = requests.is_filled.cpu().numpy()
    prompts = []
    for tokens, is_filled, counts in zip(
        requests.tokens.cpu().numpy(), filled, is_read, strict=True
    ):
        first = int(is_filled.argmin())
        if by_objectives and is_filled[first:].any():
            prompts.append(infilling(tokens[counts], ~is_filled[counts], words))
        else:
            given, n = tokens[:first], len(tokens)
            prompts.append(continuation(given, n, words, as_input=by_objectives))
    return prompts


def generate_labels(
    network: PrefixNetwork,
    drawing: Drawing,
    requests: Requests,
    *,
    by_objectives: bool,
) -> tuple[Tensor, Work]:
    """Fill all gaps of all requests.

    A pass reads one label of each request; all that went before is in its state.

    Parameters
    ----------
    network : PrefixNetwork
        In evaluation mode.
    drawing : Drawing
        How tokens are drawn.
    requests : Requests
        What; they are used up.
    by_objectives : bool
        As in :func:`make_prompts`.

    Returns
    -------
    tokens : Tensor of int64, shape (batch, position)
        Without gaps.
    work : Work
        What it took, for each request. A state counts as one row read.
    """
    tokens, work = requests.tokens.clone(), requests.work
    is_free = ~requests.is_filled
    requests.keep(is_free.any(dim=1).nonzero().flatten())
    if len(requests):
        with torch.no_grad():
            _generate(network, drawing, requests, tokens, by_objectives)
    work.n_tokens = (is_free & is_counted(tokens, requests.end)).sum(dim=1)
    return tokens, work


def _generate(
    network: PrefixNetwork,
    drawing: Drawing,
    requests: Requests,
    finished: Tensor,
    by_objectives: bool,
) -> None:
    words = network.recurrent.vocabulary
    prompts = make_prompts(requests, words, by_objectives=by_objectives)
    places = _padded([one.places for one in prompts]).to(finished.device)
    requests.memory["places"] = places
    scores, state = _read(network, requests, prompts)
    for slot in range(places.shape[1]):
        place = requests.memory["places"][:, slot : slot + 1]
        position = place.clamp_min(0)
        allowed = requests.allowed_at(position)
        drawn = drawing(scores.unsqueeze(1), requests.seeds, position, allowed)
        requests.fill(position, drawn, place >= 0)
        label = requests.tokens.gather(1, position).where(place >= 0, words.separator)
        done = requests.is_filled.all(dim=1)
        finished[requests.number[done]] = requests.tokens[done]
        items = (~done).nonzero().flatten()
        if len(items) < len(done):
            requests.keep(items)
            state, label = state.select(items), label[items]
        if not len(items):
            break
        scores, state = network.step(label.squeeze(1), state)
        _count(requests, torch.ones_like(items), n_read=1)


def _read(
    network: PrefixNetwork, requests: Requests, prompts: list[Prompt]
) -> tuple[Tensor, RecurrentState]:
    """Read all prompts in one pass."""
    words, device = network.recurrent.vocabulary, requests.seeds.device
    # The label to come is none that is read.
    rows = [RecallRow(x, np.append(labels, words.padding)) for x, labels, _ in prompts]
    batch = collate_rows(rows, begin=words.begin, padding=words.padding)
    tokens, in_prefix = (
        torch.from_numpy(one).to(device) for one in (batch.tokens, batch.in_prefix)
    )
    n_rows = torch.tensor([row.n_tokens for row in rows], device=device)
    found = network.prefill(tokens, in_prefix, n_rows, requests.condition)
    if requests.condition is not None:
        n_rows = n_rows + requests.condition.is_row.sum(dim=1)
    _count(requests, n_rows)
    return found


def _count(requests: Requests, n_rows: Tensor, n_read: int = 0) -> None:
    work, number = requests.work, requests.number
    work.n_passes[number] += 1
    work.n_rows[number] += n_rows
    work.n_read[number] += n_read


def _padded(rows: list[IntegerArray]) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), _SEPARATOR)
    for row, one in zip(table, rows, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(table)
