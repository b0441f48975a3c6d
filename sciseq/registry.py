"""The static list of methods: one line of data per method, and no imports.

Everything that needs to know which methods exist reads this table: the lazy public
names of :mod:`sciseq`, :func:`sciseq.load` (a saved file names its class by registry
name, never by import path), the command line and the methods page of the docs.
A new method is one new file plus one entry here; ``make names`` then writes
``sciseq/__init__.pyi``, which tells type checkers of the public names.
"""

from dataclasses import dataclass

__all__ = ["METHODS", "Method", "method_by_class_name", "method_by_name"]


@dataclass(frozen=True)
class Method:
    """One method that sciseq ships.

    Parameters
    ----------
    name : str
        Name on the command line and in saved files; it never changes once released.
    target : str
        ``"module:Class"``, imported only when the method is used.
    title : str
        What the method is, in one line.
    paper : str
        Where it was published.
    card : str
        Section of the method card that the code follows.
    data : str
        Kind of data: ``"forecasting"``, ``"sequencing"`` or ``"generation"``.
    status : str
        ``"stable"`` or ``"experimental"``.
    """

    name: str
    target: str
    title: str
    paper: str
    card: str
    data: str
    status: str = "stable"

    @property
    def module_name(self) -> str:
        """Module that holds the class."""
        return self.target.partition(":")[0]

    @property
    def class_name(self) -> str:
        """Public name of the class."""
        return self.target.partition(":")[2]


METHODS: tuple[Method, ...] = (
    Method(
        name="s-mamba",
        target="sciseq.forecasting.smamba:SMambaForecaster",
        title="Bidirectional selective state space over the variates",
        paper="Wang et al., Is Mamba effective for time series forecasting?, "
        "arXiv:2403.11144",
        card="forecasting §2",
        data="forecasting",
    ),
    Method(
        name="gateformer",
        target="sciseq.forecasting.gateformer:GateformerForecaster",
        title="Temporal and variate-wise attention, joined by gates",
        paper="Gateformer, arXiv:2505.00307",
        card="forecasting §3",
        data="forecasting",
    ),
    Method(
        name="mambamixer",
        target="sciseq.forecasting.mambamixer:MambaMixerForecaster",
        title="Selective mixers of time patches and variates (TSM2)",
        paper="Behrouz et al., MambaMixer, arXiv:2403.19888",
        card="forecasting §4",
        data="forecasting",
    ),
    Method(
        name="ar-net",
        target="sciseq.forecasting.arnet:ARNetForecaster",
        title="Autoregression, dense by exact least squares or sparse",
        paper="Triebe et al., AR-Net, arXiv:1911.12436",
        card="forecasting §5",
        data="forecasting",
    ),
    Method(
        name="itransformer",
        target="sciseq.forecasting.itransformer:ITransformerForecaster",
        title="Attention over variates, each series one token",
        paper="Liu et al., iTransformer, arXiv:2310.06625",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="patchtst",
        target="sciseq.forecasting.patchtst:PatchTSTForecaster",
        title="Attention over patches of time, each variate by itself",
        paper="Nie et al., A time series is worth 64 words, arXiv:2211.14730",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="linear",
        target="sciseq.forecasting.linear:LinearForecaster",
        title="One linear map from lookback to horizon (DLinear, RLinear), exact",
        paper="Zeng et al., Are Transformers effective for time series forecasting?, "
        "arXiv:2205.13504; Li et al., Revisiting long-term time series forecasting, "
        "arXiv:2305.10721",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="statsmodels",
        target="sciseq.forecasting.statsmodels_forecaster:StatsmodelsForecaster",
        title="ETS, SARIMAX, Theta and AutoReg of statsmodels, one per series",
        paper="Seabold and Perktold, Statsmodels, SciPy 2010",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="window",
        target="sciseq.forecasting.window_forecaster:WindowForecaster",
        title="Any scikit-learn regressor on lags and covariates",
        paper="Bontempi et al., Machine learning strategies for time series "
        "forecasting, eBISS 2012",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="ensemble",
        target="sciseq.forecasting.ensemble:ForecastEnsemble",
        title="Weighted mean of several forecasters",
        paper="Bates and Granger, The combination of forecasts, 1969",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="naive",
        target="sciseq.forecasting.naive:NaiveForecaster",
        title="Last value, or the value one season ago",
        paper="Hyndman and Athanasopoulos, Forecasting: principles and practice, §5.2",
        card="forecasting §6",
        data="forecasting",
    ),
    Method(
        name="generative",
        target="sciseq.forecasting.generative:GenerativeForecaster",
        title="Forecasts by continuing the tokens of a series, many times",
        paper="The idea of Ansari et al., Chronos, arXiv:2403.07815",
        card="sequences §0.6",
        data="forecasting",
        status="experimental",
    ),
    Method(
        name="peptide-sequencer",
        target="sciseq.sequencing.sequencer:PeptideSequencer",
        title="Peptides from mass spectra: hybrid autoregressive and CTC decoder",
        paper="arXiv:2510.08169",
        card="peptide §10",
        data="sequencing",
        status="experimental",
    ),
    Method(
        name="autoregressive",
        target="sciseq.generation.sequences.autoregressive:AutoregressiveSequence",
        title="Sequences token by token, from left to right",
        paper="Vaswani et al., Attention is all you need, arXiv:1706.03762",
        card="sequences §19.2",
        data="generation",
        status="experimental",
    ),
    Method(
        name="masked-diffusion",
        target="sciseq.generation.sequences.masked_diffusion:MaskedDiffusionSequence",
        title="Sequences by uncovering hidden tokens in any order (MDLM, LLaDA)",
        paper="Sahoo et al., Simple and effective masked diffusion language models, "
        "arXiv:2406.07524",
        card="sequences §1",
        data="generation",
        status="experimental",
    ),
    Method(
        name="block-diffusion",
        target="sciseq.generation.sequences.block_diffusion:BlockDiffusionSequence",
        title="Autoregressive over blocks, denoising inside them (SDAR)",
        paper="SDAR, arXiv:2510.06303",
        card="sequences §4",
        data="generation",
        status="experimental",
    ),
    Method(
        name="draft-verify",
        target="sciseq.generation.sequences.draft_verify:DraftVerifySequence",
        title="Drafts by diffusion, verified by autoregression in one pass (TiDAR)",
        paper="TiDAR, arXiv:2511.08923",
        card="sequences §7",
        data="generation",
        status="experimental",
    ),
    Method(
        name="mask-enhanced",
        target="sciseq.generation.sequences.mask_enhanced:MaskEnhancedAutoregressor",
        title="Autoregression that is trained with hidden inputs (MEAP)",
        paper="MEAP, arXiv:2502.07490",
        card="sequences §3",
        data="generation",
        status="experimental",
    ),
    Method(
        name="next-block",
        target="sciseq.generation.sequences.next_block:NextBlockSequence",
        title="From next token to next block, scores staying exact (NBDiff)",
        paper="NBDiff, arXiv:2512.06776",
        card="sequences §5",
        data="generation",
        status="experimental",
    ),
    Method(
        name="efficient-block",
        target="sciseq.generation.sequences.efficient_block:EfficientBlockDiffusion",
        title="Block diffusion with masks that favour late places (Efficient-DLM)",
        paper="Efficient-DLM, arXiv:2512.14067",
        card="sequences §9",
        data="generation",
        status="experimental",
    ),
    Method(
        name="reordered-causal",
        target="sciseq.generation.sequences.reordered_causal:ReorderedCausalDiffusion",
        title="Denoising with causal attention, known tokens first (WeDLM)",
        paper="WeDLM, arXiv:2512.22737",
        card="sequences §6",
        data="generation",
        status="experimental",
    ),
    Method(
        name="delayed-cache",
        target="sciseq.generation.sequences.delayed_cache:DelayedCacheDiffusion",
        title="Masked diffusion that reuses keys and values one pass late (dKV-Cache)",
        paper="dKV-Cache, arXiv:2505.15781",
        card="sequences §2",
        data="generation",
        status="experimental",
    ),
    Method(
        name="energy-diffusion",
        target="sciseq.generation.sequences.energy_diffusion:EnergyDiffusionSequence",
        title="Masked diffusion weighed by an energy of whole sequences (EDLM)",
        paper="EDLM, arXiv:2410.21357",
        card="sequences §8",
        data="generation",
        status="experimental",
    ),
    Method(
        name="conditional-diffusion",
        target="sciseq.generation.sequences.conditional_diffusion:ConditionalDiffusionSequence",
        title="Masked diffusion for conditions and templates (LaViDa, ViLaD)",
        paper="LaViDa, arXiv:2505.16839; ViLaD, arXiv:2508.12603",
        card="sequences §16, 17",
        data="generation",
        status="experimental",
    ),
    Method(
        name="sequential-prompt",
        target="sciseq.generation.sequences.sequential_prompt:SequentialPromptSampler",
        title="Any masked generator from left to right, the first token kept (SAP)",
        paper="SAP, arXiv:2209.14500",
        card="sequences §12",
        data="generation",
        status="experimental",
    ),
    Method(
        name="combiner",
        target="sciseq.generation.sequences.combiner:CombinerSequence",
        title="Autoregression with full attention at sparse cost (Combiner)",
        paper="Combiner, arXiv:2107.05768",
        card="sequences §13",
        data="generation",
        status="experimental",
    ),
    Method(
        name="axial",
        target="sciseq.generation.sequences.axial:AxialAutoregressor",
        title="Tables of integers by attention along rows and columns",
        paper="Axial Transformers, arXiv:1912.12180",
        card="sequences §14",
        data="generation",
        status="experimental",
    ),
    Method(
        name="prefix-state-space",
        target="sciseq.generation.sequences.prefix_state_space:PrefixStateSpace",
        title="A recurrence that reads prefixes both ways, trained to recall (Birdie)",
        paper="Birdie, arXiv:2411.01030",
        card="sequences §10",
        data="generation",
        status="experimental",
    ),
    Method(
        name="markov-chain",
        target="sciseq.generation.markov_chain:MarkovChain",
        title="Markov chain of any order, the baseline of generators",
        paper="MacKay and Peto, A hierarchical Dirichlet language model, 1995",
        card="sequences §19.9",
        data="generation",
        status="experimental",
    ),
    Method(
        name="bert4rec",
        target="sciseq.generation.sequences.cloze_recommender:ClozeRecommender",
        title="The next event, from both sides of hidden ones (BERT4Rec)",
        paper="Sun et al., BERT4Rec, arXiv:1904.06690",
        card="sequences §11",
        data="generation",
        status="experimental",
    ),
    Method(
        name="popularity-recommender",
        target="sciseq.generation.recommendation:PopularityRecommender",
        title="What occurred most often, for everyone",
        paper="Baseline of Sun et al., BERT4Rec, arXiv:1904.06690",
        card="sequences §11",
        data="generation",
        status="experimental",
    ),
    Method(
        name="transition-recommender",
        target="sciseq.generation.recommendation:TransitionRecommender",
        title="What most often followed the last item",
        paper="Baseline of Sun et al., BERT4Rec, arXiv:1904.06690",
        card="sequences §11",
        data="generation",
        status="experimental",
    ),
    Method(
        name="document-summarizer",
        target="sciseq.generation.summarizer:DocumentSummarizer",
        title="Central sentences of long documents, and summaries written from them",
        paper="arXiv:2503.10354; Erkan and Radev, LexRank, JAIR 2004",
        card="sequences §18",
        data="generation",
        status="experimental",
    ),
)


# Estimators that are saved like methods and are none: their names in saved files, which
# never change, and "module:Class".
OTHER_ESTIMATORS: dict[str, str] = {
    "forecast-pipeline": "sciseq.pipeline.forecast_pipeline:ForecastPipeline",
}


def savable_estimators() -> dict[str, str]:
    """Return "module:Class" of everything that can be saved, by its name in files."""
    return {method.name: method.target for method in METHODS} | OTHER_ESTIMATORS


def method_by_name(name: str) -> Method | None:
    """Return the method registered under ``name``, or None."""
    return next((method for method in METHODS if method.name == name), None)


def method_by_class_name(class_name: str) -> Method | None:
    """Return the method whose public class is ``class_name``, or None."""
    return next((method for method in METHODS if method.class_name == class_name), None)


OTHER_NAMES: dict[str, str] = {
    "ForecastPipeline": "sciseq.pipeline",
    "list_datasets": "sciseq.data.datasets",
    "load": "sciseq.persistence",
    "load_dataset": "sciseq.data.datasets",
}
"""Public names of :mod:`sciseq` that are no methods, and their modules."""


def public_names() -> dict[str, str]:
    """Return every lazy public name of :mod:`sciseq`, sorted, with its module."""
    methods = {method.class_name: method.module_name for method in METHODS}
    return dict(sorted((methods | OTHER_NAMES).items()))


def stub() -> str:
    """Return the text of ``sciseq/__init__.pyi``."""
    lines = ["# Made by `make names`; type checkers read it.", ""]
    by_module: dict[str, list[str]] = {}
    for name, module in public_names().items():
        by_module.setdefault(module, []).append(name)
    lines += [
        f"from {module} import {name} as {name}"
        for module, names in sorted(by_module.items())
        for name in names
    ]
    return "\n".join([*lines, "", "__version__: str", ""])
