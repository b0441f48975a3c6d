"""Devices of torch for the codec; networks and tensors have ways of their own."""

from typing import Any

import torch

from sciseq.persistence.codec import Decoder, Encoder
from sciseq.persistence.nodes import TAG, refuse_type, take

__all__ = ["DECODERS", "encode"]


def encode(encoder: Encoder, value: Any, path: str) -> Any:
    """Encode a device, as ``device=`` of an estimator; anything else is refused."""
    if type(value) is not torch.device:
        refuse_type(value, path)
    return {TAG: "torch.device", "value": str(value)}


def _decode_device(decoder: Decoder, node: dict[str, Any], path: str) -> torch.device:
    (text,) = take(node, path, value=str)
    try:
        return torch.device(text)
    except RuntimeError as error:
        raise ValueError(f"{text!r} is no device") from error


DECODERS = {"torch.device": _decode_device}
