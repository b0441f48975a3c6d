"""The static list of methods: one line of data per method, and no imports.

Everything that needs to know which methods exist reads this table: the lazy public
names of :mod:`sciseq`, :func:`sciseq.load` (a saved file names its class by registry
name, never by import path), the command line and the methods page of the docs.
A new method is one new file plus one entry here.
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
        name="naive",
        target="sciseq.forecasting.naive:NaiveForecaster",
        title="Last value, or the value one season ago",
        paper="Hyndman and Athanasopoulos, Forecasting: principles and practice, §5.2",
        card="forecasting §6",
        data="forecasting",
    ),
)


def method_by_name(name: str) -> Method | None:
    """Return the method registered under ``name``, or None."""
    return next((method for method in METHODS if method.name == name), None)


def method_by_class_name(class_name: str) -> Method | None:
    """Return the method whose public class is ``class_name``, or None."""
    return next((method for method in METHODS if method.class_name == class_name), None)
