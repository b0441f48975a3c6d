"""Network modules that the methods share."""

from sciseq.nn.dropout import Dropout, set_dropout_generator
from sciseq.nn.embedding import InvertedEmbedding
from sciseq.nn.feed_forward import FeedForward
from sciseq.nn.initialization import build_network, no_weight_decay_names
from sciseq.nn.mamba import MambaBlock, causal_depthwise_convolution
from sciseq.nn.normalization import instance_normalize

__all__ = [
    "Dropout",
    "FeedForward",
    "InvertedEmbedding",
    "MambaBlock",
    "build_network",
    "causal_depthwise_convolution",
    "instance_normalize",
    "no_weight_decay_names",
    "set_dropout_generator",
]
