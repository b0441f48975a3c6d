"""Running a network through ``torch.compile``, and without it where that fails.

A network is compiled in place by ``nn.Module.compile``: names in its state dict stay,
and copies and pickles come out as they were before.
"""

import warnings
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

from torch import nn

from sciseq.errors import SciSeqWarning

__all__ = ["is_compiled", "run_compiled", "set_compiled"]

T = TypeVar("T")

BACKEND = "inductor"

# Who failed once would fail again, after as long a wait.
_FAILED: WeakSet[nn.Module] = WeakSet()


def is_compiled(network: nn.Module) -> bool:
    """Tell whether calls of a network go through the compiler."""
    return network._compiled_call_impl is not None


def set_compiled(network: nn.Module, wanted: bool) -> None:
    """Let calls of a network go through the compiler, or no longer.

    Parameters
    ----------
    network : nn.Module
        Changed in place. What is compiled is decided by its first calls.
    wanted : bool
        True has no effect on a network whose compilation failed before.

    Warns
    -----
    SciSeqWarning
        When this installation of torch cannot compile.
    """
    if not wanted:
        _take_back(network)
    elif not is_compiled(network) and network not in _FAILED:
        try:
            network.compile(backend=BACKEND)
        except RuntimeError as error:
            _give_up(network, error)


def run_compiled(
    network: nn.Module,
    work: Callable[[], T],
    rewind: Callable[[], object] = lambda: None,
) -> T:
    """Do some work that calls a network; once more, not compiled, where that fails.

    Parameters
    ----------
    network : nn.Module
        A network that may be compiled.
    work : callable
        Calls the network.
    rewind : callable, optional
        Undoes what the first attempt left behind.

    Returns
    -------
    object
        What ``work`` returned.

    Warns
    -----
    SciSeqWarning
        When compilation failed; the network is no longer compiled.

    Examples
    --------
    >>> from torch import nn
    >>> network = nn.Linear(2, 1)
    >>> run_compiled(network, lambda: network.weight.shape)
    torch.Size([1, 2])
    """
    if not is_compiled(network):
        return work()
    try:
        return work()
    # The compiler has no common class for what can go wrong in it. An error that is
    # none of its own comes again from the second attempt.
    except Exception as error:
        _take_back(network)
        rewind()
        result = work()
        _give_up(network, error)
        return result


def _take_back(network: nn.Module) -> None:
    network._compiled_call_impl = None  # torch has no public way back


def _give_up(network: nn.Module, error: Exception) -> None:
    _FAILED.add(network)
    cause = getattr(error, "inner_exception", error)  # inside the compiler's own
    reason = str(cause).strip().partition("\n")[0] or type(cause).__name__
    warnings.warn(
        SciSeqWarning(
            f"compile=True has no effect, for torch.compile failed: {reason}. The "
            "network runs without it, with the same results."
        ),
        stacklevel=3,
    )
