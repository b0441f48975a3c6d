"""Passes of a network over many windows, so that no forecast depends on its company.

A pass has one of a few fixed sizes. The smallest makes a single forecast quick; larger
ones make many forecasts cheap, and are used only after the same windows gave the same
bits in both.

Axis legend: n windows, B windows of one pass, O rows of output, T targets.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sciseq.forecasting.window_batches import NetworkInputs

__all__ = ["TOKENS_PER_PASS", "padded", "run_in_passes", "windows_per_pass"]

# Tokens in the smallest pass: on a CPU what a single forecast can wait for, on other
# devices as many as keep them busy.
TOKENS_PER_PASS = {"cpu": 32, "cuda": 16384, "mps": 4096}

# Larger passes, as multiples of the smallest, and the most tokens that pay. More than
# these leave the caches of a CPU again.
LARGER_PASSES = {"cpu": (4, 32, 128)}
MOST_TOKENS = 4096

Run = Callable[[NetworkInputs], Tensor]

# What is known of a network: whether passes of a size give the bits of smaller ones.
_IS_SAME: WeakKeyDictionary[nn.Module, dict[Hashable, bool]] = WeakKeyDictionary()


def run_in_passes(
    network: nn.Module,
    run: Run,
    whole: NetworkInputs,
    device: torch.device,
    n_tokens: int,
    *,
    may_grow: bool = True,
    setting: Hashable = None,
) -> Tensor:
    """Run a network on some windows, each as if it were alone.

    Parameters
    ----------
    network : nn.Module
        The network that ``run`` calls; what is learnt about its passes is kept while
        it lives.
    run : callable
        From the inputs of one pass to outputs (B, O, T).
    whole : NetworkInputs
        Inputs of n windows, on the CPU.
    device : torch.device
        Where the network is.
    n_tokens : int
        Tokens that the network makes of one window.
    may_grow : bool, default=True
        Whether larger passes may be tried; each size costs a compiled network another
        compilation.
    setting : hashable, optional
        Whatever else decides how the network computes, such as its precision.

    Returns
    -------
    Tensor, shape (n, O, T)
        float64, on the CPU. The bits for a window are those of a call with this window
        alone.

    Notes
    -----
    Matrix products and vector loops may add in another order when their number of rows
    changes. A pass of a size that is new is therefore run once on random windows and
    compared, bit for bit, with smaller passes over the same windows; where they differ
    this size is not used. Which order is taken depends on shapes and threads alone, so
    these are what the answer is kept for.
    """
    n_windows = len(whole.x)
    smallest = windows_per_pass(device, n_tokens)
    sizes = [smallest]
    for factor in LARGER_PASSES.get(device.type, ()) if may_grow else ():
        size = factor * smallest
        # Fewer windows would not pay for the comparison.
        if size * n_tokens > MOST_TOKENS or n_windows < size:
            break
        if not _gives_same_bits(
            network, run, whole, device, (size, sizes[-1]), setting, n_windows
        ):
            break
        sizes.append(size)
    parts = []
    for start, size in _plan(n_windows, sizes):
        output = run(padded(whole, start, size, device))
        parts.append(output[: n_windows - start].to("cpu", torch.float64))
    return torch.cat(parts)


def windows_per_pass(device: torch.device, n_tokens: int) -> int:
    """Windows in the smallest pass of a device."""
    size = max(1, TOKENS_PER_PASS[device.type] // n_tokens)
    # Matrix products treat the last rows apart when their number is not a multiple of
    # four: a forecast would change, in its last bits, with its place in the pass.
    return size if size < 3 else max(4, size - size % 4)


def padded(
    inputs: NetworkInputs, start: int, size: int, device: torch.device
) -> NetworkInputs:
    """Windows of a pass, filled up with zeros to its fixed size."""

    def cut(block: Tensor | None) -> Any:
        if block is None:
            return None
        part = block[start : start + size]
        if len(part) < size:
            part, short = block.new_zeros((size, *block.shape[1:])), part
            part[: len(short)] = short
        return part.to(device)

    return NetworkInputs(*(cut(block) for block in inputs))


def _plan(n_windows: int, sizes: list[int]) -> Iterator[tuple[int, int]]:
    """First window and size of each pass; ``sizes`` rise, the last pass is padded."""
    start = 0
    while start < n_windows:
        rest = n_windows - start
        # What fills at least half of a pass is cheaper there than in smaller ones.
        size = max((one for one in sizes if one <= 2 * rest), default=sizes[0])
        yield start, size
        start += size


def _gives_same_bits(
    network: nn.Module,
    run: Run,
    whole: NetworkInputs,
    device: torch.device,
    sizes: tuple[int, int],
    setting: Hashable,
    n_windows: int,
) -> bool:
    """Tell whether passes of the first size give the bits of the second, smaller one.

    Asks the network when the answer is not known and enough windows wait.
    """
    size, smaller = sizes
    shapes = tuple(None if one is None else one.shape[1:] for one in whole)
    key = (size, shapes, whole.x.dtype, str(device), torch.get_num_threads(), setting)
    known = _IS_SAME.setdefault(network, {})
    if key not in known:
        if n_windows < 2 * size:
            return False
        windows = _random_like(whole, size)
        together = run(padded(windows, 0, size, device))
        apart = [
            run(padded(windows, start, smaller, device))
            for start in range(0, size, smaller)
        ]
        known[key] = torch.equal(together, torch.cat(apart))
    return known[key]


def _random_like(whole: NetworkInputs, size: int) -> NetworkInputs:
    """Random windows: among real ones equal values could hide another order."""
    generator = torch.Generator().manual_seed(0)

    def draw(block: Tensor | None) -> Any:
        if block is None:
            return None
        return torch.randn(
            (size, *block.shape[1:]), generator=generator, dtype=block.dtype
        )

    return NetworkInputs(*(draw(block) for block in whole))
