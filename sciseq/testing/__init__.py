"""Conformance checks that you can run on your own estimators.

>>> from sciseq import NaiveForecaster
>>> from sciseq.testing import check_estimator
>>> results = check_estimator(NaiveForecaster(lookback=4, horizon=3))
>>> sum(result.status == "passed" for result in results) >= 30
True
"""

from sciseq.testing.runner import CheckResult, check_estimator, checks_for

__all__ = ["CheckResult", "check_estimator", "checks_for"]
