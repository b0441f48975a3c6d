"""Training the adapters of a language model, on mixed domains or by meta-learning.

Axes: row (document).
"""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sciseq.generation.parts.meta_learning import train_reptile
from sciseq.generation.parts.text_model import TextBatches, TextModel
from sciseq.training import TrainingOptions, TrainingResult, train

__all__ = ["hold_out", "precision_of", "text_pairs", "train_adapters"]


def hold_out(
    domains: Sequence[Hashable], fraction: float, rng: np.random.Generator
) -> tuple[list[list[int]], list[int]]:
    """Split rows at random into those to train on, by domain, and those held out.

    Parameters
    ----------
    domains : sequence
        Domain of each row.
    fraction : float
        Share that is held out; above 0 at least one row. No domain gives its last row.
    rng : numpy.random.Generator
        Source of the split.

    Returns
    -------
    tuple of (list of list of int, list of int)
        Rows of each domain, and rows held out, none of them twice.

    Examples
    --------
    >>> training, held = hold_out(["a", "a", "b"], 0.3, np.random.default_rng(0))
    >>> sorted(map(len, training)), len(held)
    ([1, 1], 1)
    """
    left = Counter(domains)
    n_held = max(round(fraction * len(domains)), 1) if fraction else 0
    groups: dict[Hashable, list[int]] = {}
    held: list[int] = []
    for row in rng.permutation(len(domains)).tolist():
        if len(held) < n_held and left[domains[row]] > 1:
            held.append(row)
            left[domains[row]] -= 1
        else:
            groups.setdefault(domains[row], []).append(row)
    return list(groups.values()), held


def text_pairs(
    model: TextModel,
    sources: Sequence[str],
    targets: Sequence[Sequence[str]],
    *,
    max_source: int,
    max_target: int,
) -> TextBatches:
    """Return pairs of a source and one of its targets, as tokens on the model's device.

    Parameters
    ----------
    model : TextModel
        Whose tokens.
    sources : sequence of str
        What the model reads.
    targets : sequence of sequences of str
        One or several for each source.
    max_source, max_target : int
        Most tokens.

    Returns
    -------
    TextBatches
        One pair per target.
    """
    encoded = model.encode(sources, max_source)
    pairs = [
        (source, target)
        for source, several in zip(encoded, targets, strict=True)
        for target in several
    ]
    labels = model.encode([one for _, one in pairs], max_target, is_target=True)
    pad = int(model.tokenizer.pad_token_id)
    return TextBatches([one for one, _ in pairs], labels, pad, model.network.device)


def train_adapters(
    model: TextModel,
    adapters: nn.ModuleDict,
    domains: Sequence[TextBatches],
    validation: TextBatches | None,
    options: TrainingOptions,
    *,
    inner_steps: int | None = None,
    step_size: float = 1.0,
) -> TrainingResult:
    """Train adapters to write targets; the rest of the model stays as it is.

    Parameters
    ----------
    model : TextModel
        Model that holds the adapters.
    adapters : nn.ModuleDict
        From :func:`~sciseq.generation.parts.lora.insert_adapters`.
    domains : sequence of TextBatches
        Pairs of each domain; one entry for all of them together without Reptile.
    validation : TextBatches or None
        Pairs that the best epoch is chosen by.
    options : TrainingOptions
        Settings; the learning rate is that of AdamW, or of Reptile's inner steps.
    inner_steps : int, optional
        Train by Reptile with so many inner steps.
    step_size : float, default=1.0
        Outer learning rate of Reptile.

    Returns
    -------
    TrainingResult
        How it went.
    """

    # Only the adapters are the loop's network: it sets them to training mode, copies
    # and restores them, and the model around them stays in evaluation mode. Its own
    # dropout, which draws from torch's global random state, is never used.
    def loss(_: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return model.loss(batch)

    if inner_steps is None:
        (together,) = domains
        return train(adapters, loss, together, validation, options)
    return train_reptile(
        adapters,
        loss,
        domains,
        validation,
        options,
        inner_steps=inner_steps,
        step_size=step_size,
    )


def precision_of(network: nn.Module) -> str:
    """Name the precision of a network's weights, for the training options."""
    is_double = next(network.parameters()).dtype == torch.float64
    return "float64" if is_double else "float32"
