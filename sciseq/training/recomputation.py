"""Gradient checkpointing over layers: their insides are computed twice, and not kept.

The backward pass computes a layer again from its input, with the very draws of dropout
that the forward pass had, so that gradients are the same bits.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map
from torch.utils.checkpoint import checkpoint

from sciseq.nn.dropout import Dropout

__all__ = ["has_batch_norm", "layers_of", "recomputed_layers"]

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def has_batch_norm(network: nn.Module) -> bool:
    """Tell whether a batch norm ties the items of a batch together.

    Examples
    --------
    >>> from torch import nn
    >>> has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    True
    """
    return any(isinstance(one, _BATCH_NORMS) for one in network.modules())


def layers_of(network: nn.Module) -> list[nn.Module]:
    """Return the layers of a network: the members of its outermost module lists.

    A layer with a batch norm is left out: computed twice, it would count a batch twice
    in its running statistics.

    Examples
    --------
    >>> from torch import nn
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)]))
    >>> layers_of(network)
    [Linear(in_features=2, out_features=2, bias=True)]
    """
    layers: list[nn.Module] = []
    for child in network.children():
        if isinstance(child, nn.ModuleList):
            layers += [one for one in child if not has_batch_norm(one)]
        else:
            layers += layers_of(child)
    return layers


@contextlib.contextmanager
def recomputed_layers(network: nn.Module) -> Iterator[None]:
    """Let the layers of a network keep, inside, their inputs only.

    Parameters
    ----------
    network : nn.Module
        Network; as it was afterwards.
    """
    layers = layers_of(network)
    for layer in layers:
        layer.forward = functools.partial(_run_layer, layer, layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _run_layer(
    layer: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    generator = _dropout_generator(layer)
    state = None if generator is None else generator.get_state()
    # Copies of lists: a caller may append to its own before they are read again.
    args, kwargs = tree_map(lambda leaf: leaf, (args, kwargs))
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        # No global random state is involved, so none is to be kept.
        preserve_rng_state=False,
        context_fn=lambda: (contextlib.nullcontext(), _replayed(generator, state)),
        **kwargs,
    )


def _dropout_generator(layer: nn.Module) -> torch.Generator | None:
    """Return the generator that all dropouts of a network share, if a layer draws."""
    dropouts = (one for one in layer.modules() if isinstance(one, Dropout))
    return next((one.generator for one in dropouts if one.p > 0), None)


@contextlib.contextmanager
def _replayed(
    generator: torch.Generator | None, state: torch.Tensor | None
) -> Iterator[None]:
    if generator is None or state is None:
        yield
        return
    now = generator.get_state()
    generator.set_state(state)
    try:
        yield
    finally:
        generator.set_state(now)
