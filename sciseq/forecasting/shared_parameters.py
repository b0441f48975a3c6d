"""The documentation that all torch forecasters share, written once."""

import inspect
from typing import Any

__all__ = ["SHARED_ATTRIBUTES", "SHARED_PARAMETERS", "fill_in"]

PLACEHOLDER = "{shared_parameters}"

_ATTRIBUTES = "Attributes\n----------\n"

SHARED_PARAMETERS = """\
lookback : int, default=96
    Rows of context L.
horizon : int, default=24
    Rows to forecast H.
targets : label or list of labels, optional
    Columns to forecast; by default all that have no other role.
past_covariates : label or list of labels, optional
    Columns that are inputs only. By default, with ``targets`` given, all columns
    without another role.
future_covariates : label or list of labels, optional
    Columns whose values are known over the horizon, given as rows after the last
    observed target; or calendar features such as ``"hour"`` and ``"holiday:DE"``.
static_covariates : label or list of labels, optional
    Columns that hold one constant for each series.
sample_weight : label, optional
    Column with the weight of each row in the loss.
time_decay : float, optional
    Rows after which the weight of a row in the loss has halved, counted back from the
    end of its series.
calendar : "auto", None or list of str, default="auto"
    Calendar features of the look-back: those that suit the step of the index, none, or
    some of second, minute, hour, dayofweek, day, dayofyear, week, month and
    ``"holiday:<country>"``.
missing : {"error", "mask", "interpolate"}, default="error"
    What to do with NaN. ``"mask"`` reads missing inputs as the mean of their window
    and leaves missing truths out of the loss.
scaler : {"standard", "series", None}, default="standard"
    Standardise columns inside, over all series together or in each series by itself;
    forecasts come back in the units of the data.
variates : {"fixed", "any"}, default="fixed"
    With ``"any"`` a fitted model forecasts tables of another number of columns too,
    where its weights do not depend on it; needs ``scaler=None``.
nonnegative : bool, default=False
    Cut forecasts and intervals off at zero.
loss : {"mse", "mae", "huber", "quantile"}, default="mse"
    Loss over all steps and targets, on scaled values.
quantiles : sequence of float, default=(0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
    Levels that ``loss="quantile"`` learns; ``predict`` returns 0.5.
dropout : float, default=0.1
    Probability of every dropout.
learning_rate : float, default=1e-4
    Rate of Adam.
learning_rate_schedule : {"halving", "constant", "cosine"}, default="halving"
    ``"halving"`` halves the rate every epoch from the third on. On small tables, where
    an epoch is a few steps, ``"cosine"`` with more epochs trains further.
weight_decay : float, default=0.0
    Decoupled weight decay (AdamW).
batch_size : int, default=32
    Windows per step.
max_epochs : int, default=10
    Passes over the windows, at most.
patience : int or None, default=3
    Epochs in a row that may be worse than the best before training stops.
validation_fraction : float, default=0.1
    Share of the rows, at the end, for early stopping and calibrated intervals.
refit_on_all : bool, default=False
    Train again on all rows for as many epochs as were best.
warm_start : bool, default=False
    Let a second ``fit`` go on from the weights and the scaling of the first, to
    fine-tune on other rows of the same columns.
random_state : int, RandomState, Generator or None, default=None
    Seed of weights, shuffling and dropout; an integer gives the same bits again on a
    CPU.
device : str, default="auto"
    ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"``.
precision : {"float32", "bfloat16", "float64"}, default="float32"
    ``"bfloat16"`` computes under autocast.
verbose : int, default=0
    1 shows progress.
checkpoint_dir : path-like, optional
    Folder for checkpoints; a run that was cut off resumes from it.
memory_limit : str or int, optional
    Memory that training may take on its device, as ``"4GB"`` or in bytes, data and
    weights included. Steps that need more are computed in parts with the same
    gradients; when that is not enough, layers are computed twice instead of being kept.
compile : bool, default=False
    Run the network through ``torch.compile``. Compiling takes long: for long trainings.
n_devices : int, default=1
    Devices of each node that train together, one process each; on a CPU the number of
    processes. More than one needs the extra ``distributed``.
n_nodes : int, default=1
    Nodes that train together.
"""

SHARED_ATTRIBUTES = """\
micro_batch_size_ : int
    Windows computed at once in training, by each process; smaller than ``batch_size``
    when ``memory_limit`` asked for it, or several processes share a batch.
recomputed_layers_ : bool
    Whether layers were computed twice to stay within ``memory_limit``.
estimated_memory_ : int or None
    Estimated bytes of training; None without ``memory_limit``.
"""


def fill_in(cls: type[Any]) -> None:
    """Write the shared parameters and attributes into the docstring of a class.

    Parameters that the class declares itself are documented there, and left out.
    """
    if not cls.__doc__ or PLACEHOLDER not in cls.__doc__:
        return
    text = inspect.cleandoc(cls.__doc__)
    own = set(inspect.get_annotations(cls))
    kept = []
    for entry in _entries():
        # An entry may document several names: "a, b : int".
        name = entry.partition(" :")[0]
        if name not in own or f"\n{name} : " not in text:
            kept.append(entry)
    text = text.replace(PLACEHOLDER, "\n".join(kept))
    cls.__doc__ = _with_shared_attributes(text)


def _with_shared_attributes(text: str) -> str:
    """Add the shared attributes to the end of that section of a docstring."""
    before, title, section = text.partition(_ATTRIBUTES)
    own, blank, after = section.partition("\n\n")
    if not title:
        return text
    return f"{before}{title}{own.rstrip()}\n{SHARED_ATTRIBUTES.rstrip()}{blank}{after}"


def _entries() -> list[str]:
    """One text per parameter: its name and type, and the indented lines below."""
    entries: list[str] = []
    for line in SHARED_PARAMETERS.splitlines():
        if line.startswith(" "):
            entries[-1] += "\n" + line
        else:
            entries.append(line)
    return entries
