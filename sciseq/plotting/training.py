"""Pictures of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sciseq.errors import CapabilityError
from sciseq.plotting.canvas import COLORS, single_axes, tidy

__all__ = ["plot_history"]


def plot_history(estimator: Any, *, ax: Axes | None = None) -> Axes:
    """Draw the training and validation loss of each epoch, and mark the best one.

    Parameters
    ----------
    estimator : estimator
        A fitted estimator that was trained in epochs.
    ax : Axes, optional
        Where to draw; by default on a new figure.

    Returns
    -------
    Axes
        ``.figure`` is its figure. In a notebook it shows itself.

    Raises
    ------
    NotFittedError
        Before fit.
    CapabilityError
        When the estimator was not trained in epochs.

    Examples
    --------
    >>> from sciseq.plotting import plot_history
    >>> class Trained:
    ...     best_epoch_ = 2
    ...     history_ = [{"epoch": 1, "train_loss": 0.9},
    ...                 {"epoch": 2, "train_loss": 0.5}]
    >>> plot_history(Trained()).get_xlabel()
    'epoch'
    """
    if hasattr(estimator, "__sklearn_is_fitted__"):
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(estimator)
    records: Sequence[Mapping[str, float]] = getattr(estimator, "history_", ())
    if not records:
        raise CapabilityError(
            f"{type(estimator).__name__} was not trained in epochs, so there is no "
            "history to draw",
            where="history_",
        )
    axis = single_axes(ax, 3.6)
    for name, color in (
        ("train_loss", COLORS["history"]),
        ("validation_loss", COLORS["forecast"]),
    ):
        if name in records[0]:
            _draw_losses(axis, records, name, color)
    best = int(estimator.best_epoch_)
    axis.axvline(best, color=COLORS["truth"], linestyle="--", linewidth=1)
    axis.set_title(f"best epoch: {best}", loc="left", color=COLORS["truth"])
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("loss per value")
    tidy(axis)
    return axis


def _draw_losses(
    axis: Axes, records: Sequence[Mapping[str, float]], name: str, color: str
) -> None:
    epochs = [record["epoch"] for record in records]
    losses = [record[name] for record in records]
    axis.plot(epochs, losses, marker="o", markersize=4, color=color)
    axis.annotate(
        name.replace("_loss", ""),
        (epochs[-1], losses[-1]),
        xytext=(6, 0),
        textcoords="offset points",
        color=color,
        va="center",
        annotation_clip=False,
    )
