"""The selective scan in ONNX: one Scan node, whatever the number of tokens.

Axes: ``batch``, ``channel``, ``length`` (tokens), ``state``. Needs onnxscript, and is
imported by the export alone.
"""
# onnxscript reads the text of these functions as a language of its own.
# mypy: ignore-errors

from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op

__all__ = ["onnx_selective_scan"]


@script()
def onnx_selective_scan(u, dt, A, B, C, D) -> FLOAT[...]:
    """Write the recurrence of :func:`sciseq.ops.selective_scan.selective_scan`."""
    A_by_state = op.Transpose(A, perm=[1, 0])  # (state, channel)
    shape = op.Concat(op.Shape(u, start=0, end=1), op.Shape(A_by_state), axis=0)
    h_0 = op.Expand(0.0, shape)  # (batch, state, channel)
    x = dt * u

    @graph()
    def step(h, x_t, dt_t, B_t, C_t):
        decay = op.Exp(op.Unsqueeze(dt_t, [1]) * A_by_state)
        entered = op.Unsqueeze(x_t, [1]) * op.Unsqueeze(B_t, [2])
        h_t = decay * h + entered
        y_t = op.ReduceSum(h_t * op.Unsqueeze(C_t, [2]), [1], keepdims=0)
        return h_t, y_t

    _, y = op.Scan(
        h_0,
        x,
        dt,
        B,
        C,
        body=step,
        num_scan_inputs=4,
        scan_input_axes=[2, 2, 2, 2],
        scan_output_axes=[2],
    )
    return y + op.Unsqueeze(D, [1]) * u
