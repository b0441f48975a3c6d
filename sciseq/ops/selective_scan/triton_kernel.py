"""Selective scan on a GPU: the kernels, in Triton's language.

Axes of the tiles: ``token`` (a chunk of them; ``t`` counts in the direction of the
group), ``channel`` (a block of one group's channels), ``state`` (padded to a power of
two).

A program is one sample, one group and one block of channels. It goes through the
chunks one after the other and carries the state; within a chunk all tokens of one state
are found together by an associative scan over the maps ``h -> a h + b``. A reversed
group differs in the addresses of its tokens alone. Programs share nothing: sums over
blocks and samples are left to the caller, in a fixed order.
"""

# Names in a kernel stand for tensors of its own language, which have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import inspect
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # The module can be read without; nothing in it can run.
    triton, tl = None, type("tl", (), {"constexpr": int})

__all__ = ["scan_backward", "scan_forward"]

# Numbers that vary from call to call should not cause a new compilation. Strides of u,
# dt, y and their gradients may: channels next to each other are read as such.
_VARYING = (
    "A_strides", "B_strides", "C_strides", "D_stride", "batch", "n_groups",
    "n_channels", "n_states", "length", "reversed_groups",
)  # fmt: skip


def _kernel(function: Any) -> Any:
    if triton is None:
        return function
    names = inspect.signature(function).parameters
    varying = [name for name in _VARYING if name in names]
    return triton.jit(do_not_specialize=varying)(function)


@_kernel
def _one_after_the_other(decay_1, state_1, decay_2, state_2):
    # h -> decay h + state, twice
    return decay_1 * decay_2, decay_2 * state_1 + state_2


@_kernel
def _row(matrix, which):
    # The row of a tile that is marked.
    return tl.sum(tl.where(which[:, None], matrix, 0.0), 0)


@_kernel
def _place(n_groups, n_channels, block_size: tl.constexpr):
    # Sample, group, block, and channels counted within the group.
    n_blocks = tl.cdiv(n_channels, block_size)
    program = tl.program_id(0).to(tl.int64)
    block = program % n_blocks
    sample_and_group = program // n_blocks
    return (
        sample_and_group // n_groups,
        sample_and_group % n_groups,
        block,
        block * block_size + tl.arange(0, block_size),
    )


@_kernel
def _sequence(array, strides, sample, tokens, channels):
    # Addresses of a (token, channel) tile.
    columns = array + sample * strides[0] + channels * strides[1]
    return columns[None, :] + (tokens * strides[2])[:, None]


@_kernel
def _map(array, strides, sample, group, n, tokens):
    # Addresses of one state of B or C.
    first = array + sample * strides[0] + group * strides[1] + n * strides[2]
    return first + tokens * strides[3]


@_kernel
def scan_forward(
    u, u_strides, dt, dt_strides, A, A_strides, B, B_strides, C, C_strides,
    D, D_stride, y, y_strides,
    checkpoints,  # batch, chunk but the first, state, channel
    n_groups, n_channels, n_states, length, reversed_groups,
    has_skip: tl.constexpr, keeps: tl.constexpr,
    chunk_size: tl.constexpr, block_size: tl.constexpr, state_size: tl.constexpr,
):  # fmt: skip
    """Write y, and the state at the start of every chunk but the first."""
    sample, group, _, in_group = _place(n_groups, n_channels, block_size)
    is_channel = in_group < n_channels
    channels = group * n_channels + in_group
    is_reversed = (reversed_groups >> group) & 1
    step = 1 - 2 * is_reversed
    in_chunk = tl.arange(0, chunk_size)
    is_last = in_chunk == chunk_size - 1
    states = tl.arange(0, state_size)
    n_chunks = tl.cdiv(length, chunk_size)
    dtype = u.dtype.element_ty

    carried = tl.zeros((state_size, block_size), dtype)
    if has_skip:
        skip = tl.load(D + channels * D_stride, is_channel, 0.0)
    for chunk in range(n_chunks):
        if keeps:
            if chunk > 0:
                rows = (sample * (n_chunks - 1) + chunk - 1) * n_states + states
                tl.store(
                    checkpoints
                    + (rows * n_groups * n_channels)[:, None]
                    + channels[None, :],
                    carried,
                    (states < n_states)[:, None] & is_channel[None, :],
                )
        t = chunk * chunk_size + in_chunk
        is_token = t < length
        tokens = is_reversed * (length - 1) + step * t
        here = is_token[:, None] & is_channel[None, :]
        # Tokens that are not there have steps of zero, and change nothing.
        u_t = tl.load(_sequence(u, u_strides, sample, tokens, channels), here, 0.0)
        dt_t = tl.load(_sequence(dt, dt_strides, sample, tokens, channels), here, 0.0)
        x_t = dt_t * u_t
        y_t = tl.zeros((chunk_size, block_size), dtype)
        if has_skip:
            y_t += skip[None, :] * u_t
        for n in range(n_states):
            rate = tl.load(
                A + channels * A_strides[0] + n * A_strides[1], is_channel, 0.0
            )
            B_t = tl.load(_map(B, B_strides, sample, group, n, tokens), is_token, 0.0)
            C_t = tl.load(_map(C, C_strides, sample, group, n, tokens), is_token, 0.0)
            a_t = tl.exp(dt_t * rate[None, :])
            decay, h_t = tl.associative_scan(
                (a_t, x_t * B_t[:, None]), 0, _one_after_the_other
            )
            h_t += decay * _row(carried, states == n)[None, :]
            y_t += h_t * C_t[:, None]
            last = _row(h_t, is_last)
            carried = tl.where((states == n)[:, None], last[None, :], carried)
        tl.store(_sequence(y, y_strides, sample, tokens, channels), y_t, here)


@_kernel
def scan_backward(
    grad_y, grad_y_strides,
    u, u_strides, dt, dt_strides, A, A_strides, B, B_strides, C, C_strides,
    D, D_stride, checkpoints,
    grad_u, grad_u_strides, grad_dt, grad_dt_strides,
    grad_A,  # batch, state, channel
    grad_B, grad_C,  # block, batch, group, state, length
    grad_D,  # batch, channel
    batch, n_groups, n_channels, n_states, length, reversed_groups,
    has_skip: tl.constexpr,
    chunk_size: tl.constexpr, block_size: tl.constexpr, state_size: tl.constexpr,
):  # fmt: skip
    """Write all gradients; those of A, B, C and D are still to be summed.

    With g the gradient of h_t from all later outputs, and m_t = a_t h_{t-1}:

        m_t = a_t m_{t-1} + a_t x_{t-1} B_{t-1},    g_t = a_{t+1} g_{t+1} + gy_t C_t
        gC_t = gy_t h_t, gB_t = g_t x_t, gx_t = g_t B_t, gdt_t = g_t m_t A

    Finding m instead of h spares the difference h_t - x_t B_t, which has no digits left
    where the decay is strong.
    """
    sample, group, block, in_group = _place(n_groups, n_channels, block_size)
    is_channel = in_group < n_channels
    channels = group * n_channels + in_group
    is_reversed = (reversed_groups >> group) & 1
    step = 1 - 2 * is_reversed
    in_chunk = tl.arange(0, chunk_size)
    is_first, is_last = in_chunk == 0, in_chunk == chunk_size - 1
    states = tl.arange(0, state_size)
    n_chunks = tl.cdiv(length, chunk_size)
    dtype = u.dtype.element_ty

    # What is carried is g of the first token of a chunk.
    carried = tl.zeros((state_size, block_size), dtype)
    sum_A = tl.zeros((state_size, block_size), dtype)
    sum_D = tl.zeros((block_size,), dtype)
    if has_skip:
        skip = tl.load(D + channels * D_stride, is_channel, 0.0)
    for index in range(n_chunks):
        chunk = n_chunks - 1 - index
        n_kept = tl.where(chunk > 0, n_channels, 0)
        t = chunk * chunk_size + in_chunk
        is_token, has_previous = t < length, (t > 0) & (t < length)
        tokens = is_reversed * (length - 1) + step * t
        here = is_token[:, None] & is_channel[None, :]
        before = has_previous[:, None] & is_channel[None, :]
        after = (t + 1 < length)[:, None] & is_channel[None, :]
        gy_t = tl.load(
            _sequence(grad_y, grad_y_strides, sample, tokens, channels), here, 0.0
        )
        u_at = _sequence(u, u_strides, sample, tokens, channels)
        dt_at = _sequence(dt, dt_strides, sample, tokens, channels)
        u_t, dt_t = tl.load(u_at, here, 0.0), tl.load(dt_at, here, 0.0)
        dt_next = tl.load(dt_at + step * dt_strides[2], after, 0.0)
        x_t = dt_t * u_t
        x_previous = tl.load(u_at - step * u_strides[2], before, 0.0) * tl.load(
            dt_at - step * dt_strides[2], before, 0.0
        )
        gx_t = tl.zeros((chunk_size, block_size), dtype)
        gdt_t = tl.zeros((chunk_size, block_size), dtype)
        for n in range(n_states):
            rate = tl.load(
                A + channels * A_strides[0] + n * A_strides[1], is_channel, 0.0
            )
            B_at = _map(B, B_strides, sample, group, n, tokens)
            B_t = tl.load(B_at, is_token, 0.0)
            B_previous = tl.load(B_at - step * B_strides[3], has_previous, 0.0)
            C_t = tl.load(_map(C, C_strides, sample, group, n, tokens), is_token, 0.0)
            row = (sample * (n_chunks - 1) + chunk - 1) * n_states + n
            start = tl.load(
                checkpoints + row * n_groups * n_channels + channels,
                in_group < n_kept,
                0.0,
            )
            a_t = tl.exp(dt_t * rate[None, :])
            a_next = tl.exp(dt_next * rate[None, :])
            previous = tl.where(
                is_first[:, None], start[None, :], x_previous * B_previous[:, None]
            )
            _, m_t = tl.associative_scan((a_t, a_t * previous), 0, _one_after_the_other)
            h_t = m_t + x_t * B_t[:, None]
            from_next = a_next * _row(carried, states == n)[None, :]
            g_t = gy_t * C_t[:, None] + tl.where(is_last[:, None], from_next, 0.0)
            _, g_t = tl.associative_scan(
                (a_next, g_t), 0, _one_after_the_other, reverse=True
            )
            w_t = g_t * m_t
            gx_t += g_t * B_t[:, None]
            gdt_t += w_t * rate[None, :]
            sum_n = tl.sum(w_t * dt_t, 0)
            sum_A += tl.where((states == n)[:, None], sum_n[None, :], 0.0)
            first = _row(g_t, is_first)
            carried = tl.where((states == n)[:, None], first[None, :], carried)
            row = ((block * batch + sample) * n_groups + group) * n_states + n
            tl.store(grad_B + row * length + tokens, tl.sum(g_t * x_t, 1), is_token)
            tl.store(grad_C + row * length + tokens, tl.sum(gy_t * h_t, 1), is_token)
        sum_D += tl.sum(gy_t * u_t, 0)
        gdt_t += gx_t * u_t
        gx_t *= dt_t
        if has_skip:
            gx_t += skip[None, :] * gy_t
        tl.store(
            _sequence(grad_u, grad_u_strides, sample, tokens, channels), gx_t, here
        )
        tl.store(
            _sequence(grad_dt, grad_dt_strides, sample, tokens, channels), gdt_t, here
        )
    tl.store(grad_D + sample * n_groups * n_channels + channels, sum_D, is_channel)
    rows = sample * n_states + states
    tl.store(
        grad_A + (rows * n_groups * n_channels)[:, None] + channels[None, :],
        sum_A,
        (states < n_states)[:, None] & is_channel[None, :],
    )
