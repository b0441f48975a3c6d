"""Run a battery of checks on an estimator and count what was run."""

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from sciseq.errors import InputError, nearest_name
from sciseq.testing.samples import Samples

__all__ = ["Check", "CheckResult", "SkipCheck", "check_estimator", "checks_for"]

Check = Callable[[Any], None]

_SHARED = "sciseq.testing.estimator_checks"

# By kind of data: the module with the samples of the shared checks, then those with
# the kind's own checks. Other kinds join when their estimators come.
_BATTERIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "forecaster": (
        "sciseq.testing.tables",
        ("sciseq.testing.forecaster_checks", "sciseq.testing.container_checks"),
    ),
    "sequencer": (
        "sciseq.testing.spectra",
        ("sciseq.testing.sequencer_checks", "sciseq.testing.spectrum_checks"),
    ),
    "generator": ("sciseq.testing.sequences", ("sciseq.testing.generator_checks",)),
}


class SkipCheck(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a check that does not apply, with the reason."""


@dataclass(frozen=True)
class CheckResult:
    """Outcome of one check.

    Parameters
    ----------
    name : str
        Name of the check.
    status : {"passed", "failed", "expected failure", "skipped"}
        What happened.
    reason : str
        The error, or why it was skipped or expected to fail.
    exception : Exception or None
        The error itself.
    """

    name: str
    status: str
    reason: str = ""
    exception: Exception | None = None


def checks_for(kind: str) -> dict[str, Check]:
    """Return all checks of a kind of estimator, by name.

    Parameters
    ----------
    kind : {"forecaster", "sequencer", "generator"}
        Kind of estimator.

    Examples
    --------
    >>> "check_predict_before_fit" in checks_for("forecaster")
    True
    """
    if kind not in _BATTERIES:
        raise InputError(
            f"kind={kind!r} has no checks, allowed are {sorted(_BATTERIES)}",
            where="kind",
            hint=nearest_name(kind, _BATTERIES) or None,
        )
    source, modules = _BATTERIES[kind]
    samples = importlib.import_module(source).SAMPLES
    shared = importlib.import_module(_SHARED)
    checks = {name: _bind(getattr(shared, name), samples) for name in shared.__all__}
    return checks | {
        name: getattr(module, name)
        for module in map(importlib.import_module, modules)
        for name in module.__all__
    }


def _bind(check: Callable[[Any, Samples], None], samples: Samples) -> Check:
    @functools.wraps(check)
    def bound(estimator: Any) -> None:
        check(estimator, samples)

    return bound


def check_estimator(
    estimator: Any,
    *,
    kind: str = "forecaster",
    expected_failures: Mapping[str, str] | None = None,
    raise_on_failure: bool = True,
) -> list[CheckResult]:
    """Run the checks of a kind on fresh clones of an estimator.

    Parameters
    ----------
    estimator : estimator
        A small instance, quick to fit: for forecasters ``lookback`` of at most 8 and
        ``horizon`` of at most 4; for sequencers one that learns a little from four
        spectra of peptides of 7 to 9 residues; for generators one or two epochs.
    kind : {"forecaster", "sequencer", "generator"}, default="forecaster"
        Which battery: estimators that forecast tables, that read peptides from
        spectra, or that generate sequences.
    expected_failures : mapping, optional
        Names of checks that are known to fail, with the reason. One that passes after
        all counts as failed, so that the list stays true.
    raise_on_failure : bool, default=True
        Raise at the end when any check failed.

    Returns
    -------
    list of CheckResult
        One per check, in order.

    Raises
    ------
    AssertionError
        Naming every failed check and its reason.
    """
    expected = dict(expected_failures or {})
    results = [
        _run(name, check, estimator, expected.get(name))
        for name, check in checks_for(kind).items()
    ]
    failed = [result for result in results if result.status == "failed"]
    if failed and raise_on_failure:
        lines = "\n".join(f"  {result.name}: {result.reason}" for result in failed)
        raise AssertionError(
            f"{len(failed)} of {len(results)} checks failed for "
            f"{type(estimator).__name__}:\n{lines}"
        ) from failed[0].exception
    return results


def _run(
    name: str, check: Check, estimator: Any, expected_reason: str | None
) -> CheckResult:
    try:
        check(clone(estimator))
    except SkipCheck as skip:
        return CheckResult(name, "skipped", str(skip))
    except Exception as error:
        # Whatever a foreign estimator raises is the finding of the check.
        reason = f"{type(error).__name__}: {error}"
        if expected_reason is not None:
            return CheckResult(name, "expected failure", expected_reason, error)
        return CheckResult(name, "failed", reason, error)
    if expected_reason is not None:
        return CheckResult(name, "failed", "was expected to fail, and passed")
    return CheckResult(name, "passed")
