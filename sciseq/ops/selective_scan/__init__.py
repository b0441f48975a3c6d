"""Selective scan: one function, one reference, and backends checked against it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sciseq.errors import InputError, InputTypeError
from sciseq.ops.selective_scan.backends import (
    available_backends,
    choose,
    chosen_backend,
    is_fused,
)

__all__ = [
    "available_backends",
    "chosen_backend",
    "gated_selective_scan",
    "is_fused",
    "selective_scan",
]

_AXES = {
    "u": ("batch", "channel", "length"),
    "dt": ("batch", "channel", "length"),
    "A": ("channel", "state"),
    "B": ("batch", "group", "state", "length"),
    "C": ("batch", "group", "state", "length"),
    "D": ("channel",),
    "dt_bias": ("channel",),
    "z": ("batch", "channel", "length"),
}

_OR_UNGROUPED = " or (batch, state, length)"


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    *,
    reverse: bool | Sequence[bool] = False,
    backend: str | None = None,
) -> Tensor:
    r"""Run the selective state-space recurrence along ``length``.

    .. math::

        h_t &= \exp(dt_t A) \odot h_{t-1} + (dt_t u_t) \otimes B_t, \qquad h_0 = 0 \\
        y_t &= \langle h_t, C_t \rangle_{state} + D \odot u_t

    Parameters
    ----------
    u, dt : Tensor, shape (batch, channel, length)
        Input and positive step sizes (after the softplus).
    A : Tensor, shape (channel, state)
        Continuous-time decay rates, negative.
    B, C : Tensor, shape (batch, state, length) or (batch, group, state, length)
        Input and output maps, one per token. With groups, equal shares of the channels,
        one after the other, use the maps of their group.
    D : Tensor, shape (channel,), optional
        Skip weights; no skip when None.
    reverse : bool or sequence of bool, default False
        Whether the recurrence runs from the last token to the first, for all groups or
        for each: both directions of a bidirectional layer are one call with two groups.
    backend : str, optional
        Name of the implementation. None means the environment variable
        ``SCISEQ_SCAN`` when it is set, else the best one that works on the device.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        ``y`` in the dtype of ``u``; the state is never kept below float32.

    Raises
    ------
    InputError
        When shapes disagree (the axis is named), a tensor is not of floating point,
        there is not one direction for each group, or the backend is unknown.
    MissingDependencyError
        When the requested backend is not there for the device of ``u``.
    CapabilityError, NumericalError
        When the requested backend fails there, or disagrees with the reference.

    Notes
    -----
    Card: forecasting §1 (Gu and Dao, arXiv:2312.00752).

    Examples
    --------
    >>> import torch
    >>> from sciseq.ops.selective_scan import selective_scan
    >>> u = torch.tensor([[[1.0, 2.0]]])
    >>> dt = torch.full((1, 1, 2), 0.5)
    >>> A = torch.zeros(1, 1)
    >>> B = C = torch.ones(1, 1, 2)
    >>> selective_scan(u, dt, A, B, C).tolist()
    [[[0.5, 1.5]]]
    >>> selective_scan(u, dt, A, B, C, reverse=True).tolist()
    [[[1.5, 1.0]]]
    """
    B, C = (one[:, None] if one.ndim == 3 else one for one in (B, C))
    _check_tensors({"u": u, "dt": dt, "A": A, "B": B, "C": C, "D": D})
    directions = _directions(reverse, u.shape[1], B.shape[1])
    return choose(backend, u.device.type)(u, dt, A, B, C, D, directions)


def gated_selective_scan(
    u: Tensor,
    d: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor,
    z: Tensor,
    *,
    reverse: bool | Sequence[bool] = False,
    backend: str | None = None,
) -> Tensor:
    r"""Run the scan of a Mamba block with what stands around it.

    .. math:: out = \mathrm{scan}(u, \mathrm{softplus}(d + b_{dt}), A, B, C, D)
              \odot \mathrm{SiLU}(z)

    Parameters
    ----------
    u, A, B, C, D, reverse, backend
        As in :func:`selective_scan`.
    d, z : Tensor, shape (batch, channel, length)
        Step sizes before the softplus, without their offset, and gates.
    dt_bias : Tensor, shape (channel,)
        Offset of the step sizes.

    Returns
    -------
    Tensor, shape (batch, channel, length)
        In the dtype of ``u``.

    Raises
    ------
    InputError, MissingDependencyError, NumericalError
        As :func:`selective_scan` does.

    Notes
    -----
    Card: forecasting §1, steps 5 to 8. The backend ``"c"`` computes all of it in one
    pass over the tokens; others compose it.

    Examples
    --------
    >>> import torch
    >>> u = torch.tensor([[[1.0, 2.0]]])
    >>> B = C = torch.ones(1, 1, 2)
    >>> y = gated_selective_scan(
    ...     u, torch.zeros_like(u), -torch.ones(1, 1), B, C, None,
    ...     dt_bias=torch.zeros(1), z=torch.ones_like(u),
    ... )
    >>> y.shape
    torch.Size([1, 1, 2])
    """
    if not is_fused(u, backend):
        dt = torch.nn.functional.softplus(d + dt_bias[:, None])
        y = selective_scan(u, dt, A, B, C, D, reverse=reverse, backend=backend)
        return y * torch.nn.functional.silu(z)
    from sciseq.ops.selective_scan.c_backend import gated_scan

    B, C = (one[:, None] if one.ndim == 3 else one for one in (B, C))
    _check_tensors(
        {"u": u, "dt": d, "A": A, "B": B, "C": C, "D": D, "dt_bias": dt_bias, "z": z}
    )
    directions = _directions(reverse, u.shape[1], B.shape[1])
    return gated_scan(u, d, A, B, C, D, dt_bias, z, directions)


def _check_tensors(tensors: dict[str, Tensor | None]) -> None:
    sizes: dict[str, tuple[int, str]] = {}
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        axes = _AXES[name]
        if not tensor.is_floating_point():
            raise InputTypeError(
                f"{name} has dtype {tensor.dtype}, must be of floating point",
                where=f"selective_scan, {name}",
            )
        if tensor.ndim != len(axes):
            raise InputError(
                f"{name} has shape {tuple(tensor.shape)}, must be "
                f"({', '.join(axes)}){_OR_UNGROUPED * ('group' in axes)}",
                where=f"selective_scan, {name}",
            )
        for axis, size in zip(axes, tensor.shape, strict=True):
            expected, source = sizes.setdefault(axis, (size, name))
            if size != expected:
                raise InputError(
                    f"{name} has {size} along {axis}, {source} has {expected}",
                    where=f"selective_scan, {name}, axis {axis}",
                    hint=f"{name} is ({', '.join(axes)}).",
                )


def _directions(
    reverse: bool | Sequence[bool], n_channels: int, n_groups: int
) -> tuple[bool, ...]:
    if isinstance(reverse, bool):
        reverse = (reverse,) * n_groups
    if len(reverse) != n_groups:
        raise InputError(
            f"reverse has {len(reverse)} directions, B and C have {n_groups} groups",
            where="selective_scan, reverse",
        )
    if n_groups == 0 or n_channels % n_groups:
        raise InputError(
            f"{n_channels} channels cannot be shared equally by {n_groups} groups",
            where="selective_scan, axis group",
        )
    return tuple(map(bool, reverse))
