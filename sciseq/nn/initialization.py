"""Building networks whose every number comes from an explicit generator.

A module of ours may follow two conventions that this file reads:
``initialize_parameters(generator)`` sets the tensors that the module owns itself (its
children are set before), and ``no_weight_decay`` names parameters that an optimiser
must not decay.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import torch
from torch import Tensor, nn

from sciseq.errors import InputError

__all__ = ["build_network", "no_weight_decay_names"]

Network = TypeVar("Network", bound=nn.Module)


@runtime_checkable
class _SelfInitializing(Protocol):
    def initialize_parameters(self, generator: torch.Generator) -> None: ...


def build_network(
    factory: Callable[[], Network], generator: torch.Generator
) -> Network:
    r"""Construct a network and draw its parameters from ``generator``.

    Linear and one-dimensional convolution layers get weights and biases from
    :math:`U(-1/\sqrt{fan_{in}}, 1/\sqrt{fan_{in}})`, layer and batch norms ones and
    zeros; modules with an ``initialize_parameters(generator)`` method set their own
    tensors.

    Parameters
    ----------
    factory : callable
        Returns the network; called once, without arguments.
    generator : torch.Generator
        Generator on the CPU. The same state gives the same bits on every machine,
        whatever other threads draw, and the global random state is not touched.

    Returns
    -------
    nn.Module
        The network, on the CPU.

    Raises
    ------
    InputError
        When the generator is not on the CPU, or a parameter or buffer was left without
        a value.

    Notes
    -----
    The network is constructed on the meta device, where the constructors of torch's
    own layers draw nothing, and gets its memory afterwards.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> first = build_network(lambda: nn.Linear(4, 2), torch.Generator().manual_seed(0))
    >>> again = build_network(lambda: nn.Linear(4, 2), torch.Generator().manual_seed(0))
    >>> torch.equal(first.weight, again.weight), bool(first.weight.abs().max() <= 0.5)
    (True, True)
    """
    if generator.device.type != "cpu":
        raise InputError(
            f"generator is on {generator.device}, must be on cpu",
            where="build_network",
            hint="Build on the CPU and move the network afterwards.",
        )
    with torch.device("meta"):
        network = factory()
    # As to_empty does it, which imports sympy to know the strides of a meta tensor.
    cast(Any, network)._apply(lambda one: torch.empty(one.shape, dtype=one.dtype))
    blank = {name: (tensor, _blank(tensor)) for name, tensor in _tensors(network)}
    # Reversed, parents come after their children and may overrule them.
    for module in reversed(list(network.modules())):
        _initialize(module, generator)
    unset = [
        name for name, tensor in _tensors(network) if _is_unset(tensor, blank.get(name))
    ]
    if unset:
        raise InputError(
            f"left without initial value: {', '.join(unset)}",
            where="build_network",
            hint="Set them in initialize_parameters(generator) of their module.",
        )
    return network


def no_weight_decay_names(network: nn.Module) -> frozenset[str]:
    """Return the full names of the parameters that must not be decayed.

    Parameters
    ----------
    network : nn.Module
        Network whose modules may carry a ``no_weight_decay`` tuple of names.

    Returns
    -------
    frozenset of str
        Names as in ``network.named_parameters()``.

    Examples
    --------
    >>> from sciseq.nn import MambaBlock
    >>> sorted(no_weight_decay_names(MambaBlock(8)))
    ['A_log', 'D']
    """
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        for name in getattr(module, "no_weight_decay", ())
    )


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


@torch.no_grad()
def _blank(tensor: Tensor) -> int:
    # Fresh memory holds anything; NaN shows what nobody wrote. Other types have no
    # NaN, so the count of writes to the tensor is remembered as well.
    tensor.fill_(math.nan if tensor.is_floating_point() else 0)
    return tensor._version


def _is_unset(tensor: Tensor, blank: tuple[Tensor, int] | None) -> bool:
    untouched = blank is not None and tensor is blank[0] and tensor._version == blank[1]
    return untouched or tensor.is_meta or bool(tensor.isnan().any())


def _initialize(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, _SelfInitializing):
        module.initialize_parameters(generator)
    elif isinstance(module, nn.Linear | nn.Conv1d):
        bound = 1 / math.sqrt(module.weight.shape[1:].numel())
        nn.init.uniform_(module.weight, -bound, bound, generator=generator)
        if module.bias is not None:
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d):
        module.reset_parameters()  # draws nothing; also sets the running statistics
