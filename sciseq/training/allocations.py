"""Counting the bytes that torch allocates, and telling when there are no more."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sciseq.errors import CapabilityError

__all__ = [
    "AllocationMeter",
    "LimitReached",
    "bytes_of",
    "is_out_of_memory",
    "out_of_memory_named",
]

_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


class LimitReached(Exception):  # noqa: N818 (work was broken off, nothing is wrong)
    """More memory is live than was allowed."""


class AllocationMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of the tensors that operators make inside a ``with`` block.

    Views and results in place count once, and tensors that were there before do not
    count. The workspace that a kernel takes and gives back by itself is not seen.

    Parameters
    ----------
    device : torch.device
        Memory of this kind of device is counted.
    limit : int, optional
        Bytes at which the work inside is broken off.

    Raises
    ------
    LimitReached
        From the operator after which more than ``limit`` bytes are live.

    Attributes
    ----------
    live, peak : int
        Bytes now, and at most so far.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(1000)
    >>> with AllocationMeter(torch.device("cpu")) as meter:
    ...     y = (x + 1) * 2  # the sum is gone when the product is there
    >>> meter.live, meter.peak
    (4000, 8000)
    """

    def __init__(self, device: torch.device, limit: int | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.limit = limit
        self.live = 0
        self.peak = 0
        self._device_type = device.type
        # Addresses are used again once a storage is gone, so its end must be noticed.
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and count what it made."""
        kwargs = kwargs or {}
        for one in _tensors(args, kwargs):
            self._note(one, is_new=False)
        result = func(*args, **kwargs)
        for one in _tensors(result):
            self._note(one, is_new=True)
        if self.limit is not None and self.live > self.limit:
            raise LimitReached
        return result

    def _note(self, tensor: Tensor, *, is_new: bool) -> None:
        if tensor.device.type != self._device_type:
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        n_bytes = storage.nbytes() if is_new else 0

        def forget(_: Any) -> None:
            self.live -= n_bytes
            del self._known[key]

        self._known[key] = weakref.ref(storage, forget)
        self.live += n_bytes
        self.peak = max(self.peak, self.live)


def bytes_of(*trees: Any) -> int:
    """Return the memory of all tensors in nested containers, shared memory once.

    Examples
    --------
    >>> import torch
    >>> x = torch.zeros(10)
    >>> bytes_of([x, x[:5]], {"y": torch.zeros(2)})
    48
    """
    storages = [one.untyped_storage() for one in _tensors(*trees)]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out.

    Examples
    --------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("no luck"))
    (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # The CPU and MPS allocators have no class of their own.
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        one in text for one in _OUT_OF_MEMORY
    )


@contextlib.contextmanager
def out_of_memory_named(work: str, device: torch.device | str) -> Iterator[None]:
    """Let a lack of memory inside name the settings that need less.

    Parameters
    ----------
    work : str
        What is done inside, for the message.
    device : torch.device or str
        Where.

    Raises
    ------
    CapabilityError
        In place of any error that says that memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise CapabilityError(
            f"the memory of the device {device} is not enough for {work}",
            where=str(device),
            hint="Lower batch_size or the size of the network (d_model, n_layers, "
            "lookback), or set memory_limit to what is free, for example "
            "memory_limit='4GB': a step is then computed in parts.",
        ) from error


def _tensors(*trees: Any) -> list[Tensor]:
    return [one for one in tree_leaves(trees) if isinstance(one, Tensor)]
