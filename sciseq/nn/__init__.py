"""Network modules that the methods share."""

from sciseq.nn.attention import (
    MultiHeadSelfAttention,
    TransformerEncoder,
    TransformerLayer,
)
from sciseq.nn.covariates import CovariateTokens
from sciseq.nn.dropout import Dropout, set_dropout_generator
from sciseq.nn.embedding import InvertedEmbedding
from sciseq.nn.feed_forward import FeedForward
from sciseq.nn.gates import ElementwiseGate
from sciseq.nn.initialization import build_network, no_weight_decay_names
from sciseq.nn.mamba import MambaBlock
from sciseq.nn.mixer_stack import MixerStack, WeightedAverage
from sciseq.nn.mixers import (
    BidirectionalMixer,
    SelectiveChannelMixer,
    SelectiveSSM,
    SelectiveTokenMixer,
)
from sciseq.nn.normalization import instance_normalize
from sciseq.nn.patching import (
    PatchEmbedding,
    PatchSeriesEmbedding,
    count_patches,
    sinusoidal_positions,
)
from sciseq.nn.scan_geometry import (
    CausalConvolution,
    GridConvolution,
    ScanOrder,
    cross_scan,
)

__all__ = [
    "BidirectionalMixer",
    "CausalConvolution",
    "CovariateTokens",
    "Dropout",
    "ElementwiseGate",
    "FeedForward",
    "GridConvolution",
    "InvertedEmbedding",
    "MambaBlock",
    "MixerStack",
    "MultiHeadSelfAttention",
    "PatchEmbedding",
    "PatchSeriesEmbedding",
    "ScanOrder",
    "SelectiveChannelMixer",
    "SelectiveSSM",
    "SelectiveTokenMixer",
    "TransformerEncoder",
    "TransformerLayer",
    "WeightedAverage",
    "build_network",
    "count_patches",
    "cross_scan",
    "instance_normalize",
    "no_weight_decay_names",
    "set_dropout_generator",
    "sinusoidal_positions",
]
