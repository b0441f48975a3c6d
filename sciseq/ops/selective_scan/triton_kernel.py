"""Selective scan on a GPU: the kernels, in Triton's language.

Axes of the tiles: ``token`` (a chunk of them; ``t`` counts in the direction of the
group), ``state`` (padded to a power of two), ``channel`` (a block of one group's).

A program is one warp: one sample, one group and one block of channels. It goes through
the tokens one after the other and carries the state in registers; inputs are read and
outputs are written by chunks of tokens, whose loop is unrolled, so that the rows of a
chunk are registers, too. A reversed group differs in the addresses of its tokens alone.
Programs share nothing: sums over blocks and samples are left to the caller, in a fixed
order.
"""

# Names in a kernel stand for tensors of its own language, which have no Python types.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import inspect
from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # The module can be read without; nothing in it can run.
    triton, tl = None, type("tl", (), {"constexpr": float})

__all__ = ["scan_backward", "scan_forward"]

LOG2_E, LN_2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)

# Numbers that vary from call to call should not cause a new compilation. Strides of u,
# dt, y and their gradients may: channels next to each other are read as such.
_VARYING = (
    "A_strides", "D_stride", "batch", "n_groups", "n_channels", "length",
    "reversed_groups",
)  # fmt: skip


def _kernel(function: Any) -> Any:
    if triton is None:
        return function
    names = inspect.signature(function).parameters
    varying = [name for name in _VARYING if name in names]
    return triton.jit(do_not_specialize=varying)(function)


@_kernel
def _or(a, b):
    return a | b


@_kernel
def _row(tile, which):
    # The row of a tile that is marked, whatever its axes behind the first. Marks of an
    # unrolled loop are constants, and or-ing zeros (not adding them, -0.0 + 0.0 being
    # 0.0) costs nothing then.
    bits = tl.core.get_int_dtype(tile.dtype.primitive_bitwidth, True)
    marked = tl.where(which, tile.to(bits, bitcast=True), 0)
    return tl.reduce(marked, 0, _or).to(tile.dtype, bitcast=True)


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
def _token(t, length, is_reversed):
    # Behind the end it is the last one again: steps of zero make nothing of it.
    t = tl.minimum(t, length - 1)
    return is_reversed * (length - 1 - 2 * t) + t


@_kernel
def _rate(A, strides, states, channels, is_entry):
    # A in the base 2, which the hardware's exponential has.
    at = (states * strides[1])[:, None] + (channels * strides[0])[None, :]
    return tl.load(A + at, is_entry, 0.0) * LOG2_E


@_kernel
def _kept(row, n_states, n_channels, states, channels):
    # Addresses of a (state, channel) tile of a checkpoint.
    return ((row * n_states + states) * n_channels)[:, None] + channels[None, :]


@_kernel
def _inputs(
    u, u_strides, dt, dt_strides, sample, t, length, is_reversed, channels, is_channel
):  # fmt: skip
    # A chunk of u and dt, its tokens, and which entries are there. Tokens that are not
    # there have steps of zero, and change nothing.
    tokens = is_reversed * (length - 1 - 2 * t) + t
    here = (t < length)[:, None] & is_channel[None, :]
    u_all = tl.load(_sequence(u, u_strides, sample, tokens, channels), here, 0.0)
    dt_all = tl.load(_sequence(dt, dt_strides, sample, tokens, channels), here, 0.0)
    return u_all, dt_all, tokens, here


@_kernel
def _maps(array, strides, sample, group, states, token):
    # Addresses of all states of B or C at one token.
    first = array + sample * strides[0] + group * strides[1] + token * strides[3]
    return first + states * strides[2]


@_kernel
def scan_forward(
    u, u_strides, dt, dt_strides, A, A_strides, B, B_strides, C, C_strides,
    D, D_stride, y, y_strides,
    checkpoints,  # batch, chunk but the first, state, channel
    n_groups, n_channels, n_states: tl.constexpr, length, reversed_groups,
    has_skip: tl.constexpr, keeps: tl.constexpr,
    chunk_size: tl.constexpr, block_size: tl.constexpr, state_size: tl.constexpr,
):  # fmt: skip
    """Write y, and the state at the start of every chunk but the first."""
    sample, group, _, in_group = _place(n_groups, n_channels, block_size)
    is_channel = in_group < n_channels
    channels = group * n_channels + in_group
    is_reversed = (reversed_groups >> group) & 1
    in_chunk = tl.arange(0, chunk_size)
    states = tl.arange(0, state_size)
    is_state = states < n_states
    is_entry = is_state[:, None] & is_channel[None, :]
    n_chunks = tl.cdiv(length, chunk_size)

    rate = _rate(A, A_strides, states, channels, is_entry)
    h = tl.zeros((state_size, block_size), u.dtype.element_ty)
    if has_skip:
        skip = tl.load(D + channels * D_stride, is_channel, 0.0)
    u_next, dt_next, tokens_next, here_next = _inputs(
        u, u_strides, dt, dt_strides, sample, in_chunk, length, is_reversed,
        channels, is_channel,
    )  # fmt: skip
    for chunk in range(n_chunks):
        if keeps:
            if chunk > 0:
                row = sample * (n_chunks - 1) + chunk - 1
                kept = _kept(row, n_states, n_groups * n_channels, states, channels)
                tl.store(checkpoints + kept, h, is_entry)
        # The next chunk is asked for while this one is computed.
        u_all, dt_all, tokens, here = u_next, dt_next, tokens_next, here_next
        t = (chunk + 1) * chunk_size + in_chunk
        u_next, dt_next, tokens_next, here_next = _inputs(
            u, u_strides, dt, dt_strides, sample, t, length, is_reversed,
            channels, is_channel,
        )  # fmt: skip
        y_all = tl.zeros((chunk_size, block_size), u.dtype.element_ty)
        if has_skip:
            y_all += skip[None, :] * u_all
        for i in tl.static_range(chunk_size):
            is_now = in_chunk[:, None] == i
            token = _token(chunk * chunk_size + i, length, is_reversed)
            B_t = tl.load(
                _maps(B, B_strides, sample, group, states, token), is_state, 0.0
            )
            C_t = tl.load(
                _maps(C, C_strides, sample, group, states, token), is_state, 0.0
            )
            u_t, dt_t = _row(u_all, is_now), _row(dt_all, is_now)
            x_t = dt_t * u_t
            h = tl.exp2(dt_t[None, :] * rate) * h + x_t[None, :] * B_t[:, None]
            y_t = tl.sum(h * C_t[:, None], 0)
            y_all = tl.where(is_now, y_all + y_t[None, :], y_all)
        tl.store(_sequence(y, y_strides, sample, tokens, channels), y_all, here)


@_kernel
def scan_backward(
    grad_y, grad_y_strides,
    u, u_strides, dt, dt_strides, A, A_strides, B, B_strides, C, C_strides,
    D, D_stride, checkpoints,
    grad_u, grad_u_strides, grad_dt, grad_dt_strides,
    grad_A,  # batch, state, channel
    grad_B, grad_C,  # block, batch, group, length, state
    grad_D,  # batch, channel
    batch, n_groups, n_channels, n_states: tl.constexpr, length, reversed_groups,
    has_skip: tl.constexpr,
    chunk_size: tl.constexpr, block_size: tl.constexpr, state_size: tl.constexpr,
):  # fmt: skip
    """Write all gradients; those of A, B, C and D are still to be summed.

    With g the gradient of h_t from all later outputs, and m_t = a_t h_{t-1}:

        h_t = m_t + x_t B_t,    g_t = a_{t+1} g_{t+1} + gy_t C_t
        gC_t = gy_t h_t, gB_t = g_t x_t, gx_t = g_t B_t, gdt_t = g_t m_t A

    m is found in the order of the tokens from the state before the chunk, and kept for
    the way back. Keeping m instead of h spares the difference h_t - x_t B_t, which has
    no digits left where the decay is strong.
    """
    sample, group, block, in_group = _place(n_groups, n_channels, block_size)
    is_channel = in_group < n_channels
    channels = group * n_channels + in_group
    is_reversed = (reversed_groups >> group) & 1
    in_chunk = tl.arange(0, chunk_size)
    states = tl.arange(0, state_size)
    is_state = states < n_states
    is_entry = is_state[:, None] & is_channel[None, :]
    n_chunks = tl.cdiv(length, chunk_size)
    dtype = u.dtype.element_ty

    rate = _rate(A, A_strides, states, channels, is_entry)
    g = tl.zeros((state_size, block_size), dtype)  # a_{t+1} g_{t+1} between tokens
    sum_A = tl.zeros((state_size, block_size), dtype)
    sum_D = tl.zeros((block_size,), dtype)
    if has_skip:
        skip = tl.load(D + channels * D_stride, is_channel, 0.0)
    for index in range(n_chunks):
        chunk = n_chunks - 1 - index
        u_all, dt_all, tokens, here = _inputs(
            u, u_strides, dt, dt_strides, sample, chunk * chunk_size + in_chunk,
            length, is_reversed, channels, is_channel,
        )  # fmt: skip
        gy_all = tl.load(
            _sequence(grad_y, grad_y_strides, sample, tokens, channels), here, 0.0
        )
        row = sample * (n_chunks - 1) + chunk - 1
        kept = _kept(row, n_states, n_groups * n_channels, states, channels)
        n_kept = tl.where(chunk > 0, n_states, 0)
        h = tl.load(checkpoints + kept, is_entry & (states < n_kept)[:, None], 0.0)
        m_all = tl.zeros((chunk_size, state_size, block_size), dtype)
        for i in tl.static_range(chunk_size):
            is_now = in_chunk[:, None] == i
            token = _token(chunk * chunk_size + i, length, is_reversed)
            B_t = tl.load(
                _maps(B, B_strides, sample, group, states, token), is_state, 0.0
            )
            u_t, dt_t = _row(u_all, is_now), _row(dt_all, is_now)
            x_t = dt_t * u_t
            m_t = tl.exp2(dt_t[None, :] * rate) * h
            m_all = tl.where(is_now[:, :, None], m_t[None, :, :], m_all)
            h = m_t + x_t[None, :] * B_t[:, None]
        gx_all = tl.zeros((chunk_size, block_size), dtype)
        gdt_all = tl.zeros((chunk_size, block_size), dtype)
        token = _token(chunk * chunk_size + chunk_size - 1, length, is_reversed)
        B_t = tl.load(_maps(B, B_strides, sample, group, states, token), is_state, 0.0)
        C_t = tl.load(_maps(C, C_strides, sample, group, states, token), is_state, 0.0)
        for i in tl.static_range(chunk_size - 1, -1, -1):
            is_now = in_chunk[:, None] == i
            token = _token(chunk * chunk_size + i, length, is_reversed)
            # What the next step needs is asked for before this one writes anything,
            # because a read cannot pass a write.
            before = _token(
                tl.maximum(chunk * chunk_size + i - 1, 0), length, is_reversed
            )
            B_next = tl.load(
                _maps(B, B_strides, sample, group, states, before), is_state, 0.0
            )
            C_next = tl.load(
                _maps(C, C_strides, sample, group, states, before), is_state, 0.0
            )
            u_t, dt_t = _row(u_all, is_now), _row(dt_all, is_now)
            gy_t = _row(gy_all, is_now)
            m_t = _row(m_all, is_now[:, :, None])
            x_t = dt_t * u_t
            g += gy_t[None, :] * C_t[:, None]
            h_t = m_t + x_t[None, :] * B_t[:, None]
            w_t = g * m_t
            sum_A += w_t * dt_t[None, :]
            gx_t, gdt_t = tl.sum(g * B_t[:, None], 0), tl.sum(w_t * rate, 0)
            gx_all = tl.where(is_now, gx_t[None, :], gx_all)
            gdt_all = tl.where(is_now, gdt_t[None, :], gdt_all)
            there = states < tl.where(chunk * chunk_size + i < length, n_states, 0)
            row = ((block * batch + sample) * n_groups + group) * length + token
            at = row * n_states + states
            tl.store(grad_B + at, tl.sum(g * x_t[None, :], 1), there)
            tl.store(grad_C + at, tl.sum(gy_t[None, :] * h_t, 1), there)
            g *= tl.exp2(dt_t[None, :] * rate)
            B_t, C_t = B_next, C_next
        sum_D += tl.sum(gy_all * u_all, 0)
        gdt_all = gdt_all * LN_2 + gx_all * u_all
        gx_all *= dt_all
        if has_skip:
            gx_all += skip[None, :] * gy_all
        tl.store(
            _sequence(grad_u, grad_u_strides, sample, tokens, channels), gx_all, here
        )
        tl.store(
            _sequence(grad_dt, grad_dt_strides, sample, tokens, channels), gdt_all, here
        )
    kept = _kept(sample, n_states, n_groups * n_channels, states, channels)
    tl.store(grad_A + kept, sum_A, is_entry)
    tl.store(grad_D + sample * n_groups * n_channels + channels, sum_D, is_channel)
