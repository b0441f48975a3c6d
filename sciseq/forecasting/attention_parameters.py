"""Parameters that the attention forecasters share, and what they must satisfy."""

from sciseq.parameters import Boolean, Integer
from sciseq.parameters import Rule as ParameterRule

__all__ = ["ATTENTION_RULES", "head_problems"]

ATTENTION_RULES: dict[str, ParameterRule] = {
    "d_model": Integer(1),
    "n_layers": Integer(1),
    "n_heads": Integer(1),
    "patch_length": Integer(1),
    "stride": Integer(1),
    "use_norm": Boolean(),
}


def head_problems(d_model: int, n_heads: int) -> list[str]:
    """Tell what is wrong with the number of heads, if anything.

    Examples
    --------
    >>> head_problems(64, 4)
    []
    """
    if d_model % n_heads == 0:
        return []
    return [f"d_model={d_model} must be a multiple of n_heads={n_heads}"]
