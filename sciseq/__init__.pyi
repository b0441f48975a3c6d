# Made by `make names`; type checkers read it.

from sciseq.data.datasets import list_datasets as list_datasets
from sciseq.data.datasets import load_dataset as load_dataset
from sciseq.forecasting.arnet import ARNetForecaster as ARNetForecaster
from sciseq.forecasting.ensemble import ForecastEnsemble as ForecastEnsemble
from sciseq.forecasting.gateformer import GateformerForecaster as GateformerForecaster
from sciseq.forecasting.itransformer import ITransformerForecaster as ITransformerForecaster
from sciseq.forecasting.linear import LinearForecaster as LinearForecaster
from sciseq.forecasting.mambamixer import MambaMixerForecaster as MambaMixerForecaster
from sciseq.forecasting.naive import NaiveForecaster as NaiveForecaster
from sciseq.forecasting.patchtst import PatchTSTForecaster as PatchTSTForecaster
from sciseq.forecasting.smamba import SMambaForecaster as SMambaForecaster
from sciseq.forecasting.statsmodels_forecaster import StatsmodelsForecaster as StatsmodelsForecaster
from sciseq.forecasting.window_forecaster import WindowForecaster as WindowForecaster
from sciseq.generation.markov_chain import MarkovChain as MarkovChain
from sciseq.generation.recommendation import PopularityRecommender as PopularityRecommender
from sciseq.generation.recommendation import TransitionRecommender as TransitionRecommender
from sciseq.generation.sequences.autoregressive import AutoregressiveSequence as AutoregressiveSequence
from sciseq.generation.sequences.axial import AxialAutoregressor as AxialAutoregressor
from sciseq.generation.sequences.block_diffusion import BlockDiffusionSequence as BlockDiffusionSequence
from sciseq.generation.sequences.combiner import CombinerSequence as CombinerSequence
from sciseq.generation.sequences.draft_verify import DraftVerifySequence as DraftVerifySequence
from sciseq.generation.sequences.efficient_block import EfficientBlockDiffusion as EfficientBlockDiffusion
from sciseq.generation.sequences.mask_enhanced import MaskEnhancedAutoregressor as MaskEnhancedAutoregressor
from sciseq.generation.sequences.masked_diffusion import MaskedDiffusionSequence as MaskedDiffusionSequence
from sciseq.generation.sequences.next_block import NextBlockSequence as NextBlockSequence
from sciseq.generation.sequences.reordered_causal import ReorderedCausalDiffusion as ReorderedCausalDiffusion
from sciseq.generation.summarizer import DocumentSummarizer as DocumentSummarizer
from sciseq.persistence import load as load
from sciseq.pipeline import ForecastPipeline as ForecastPipeline
from sciseq.sequencing.sequencer import PeptideSequencer as PeptideSequencer

__version__: str
