"""Our own errors: kinds, messages, and the way between processes."""

import copy
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sciseq import errors
from sciseq.errors import SciSeqError, nearest_name

KINDS = {
    "CapabilityError": NotImplementedError,
    "CheckpointError": ValueError,
    "DataQualityError": ValueError,
    "FileFormatError": ValueError,
    "InputError": ValueError,
    "InputTypeError": TypeError,
    "MissingDependencyError": ImportError,
    "NumericalError": ArithmeticError,
    "ProcessError": RuntimeError,
    "UnsafeFileError": ValueError,
}


def test_the_list_is_complete():
    found = {
        name
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, SciSeqError)
    }
    assert found == {*KINDS, "SciSeqError"}
    assert errors.__all__ == sorted(errors.__all__)
    assert {*KINDS, "SciSeqError", "SciSeqWarning", "nearest_name"} == set(
        errors.__all__
    )
    assert not issubclass(errors.SciSeqWarning, SciSeqError)


@pytest.mark.parametrize(("name", "builtin"), sorted(KINDS.items()))
def test_each_error_is_also_the_builtin_that_users_catch(name, builtin):
    kind = getattr(errors, name)
    with pytest.raises(builtin):
        raise kind("message")
    with pytest.raises(SciSeqError):
        raise kind("message")
    assert name != "InputTypeError" or issubclass(kind, ValueError)


@pytest.mark.parametrize(
    ("where", "hint", "text"),
    [
        (None, None, "it broke"),
        ("row 3", None, "it broke (at: row 3)"),
        (None, "Mend it.", "it broke. Mend it."),
        ("row 3", "Mend it.", "it broke (at: row 3). Mend it."),
    ],
)
def test_the_message_says_what_where_and_how_to_mend_it(where, hint, text):
    error = errors.InputError("it broke", where=where, hint=hint)
    assert str(error) == text
    assert (error.message, error.where, error.hint) == ("it broke", where, hint)


@pytest.mark.parametrize("ending", [".", "?", "!"])
def test_a_sentence_is_not_ended_twice(ending):
    assert (
        str(errors.InputError(f"Is it{ending}", hint="Yes.")) == f"Is it{ending} Yes."
    )


@pytest.mark.parametrize("name", [*sorted(KINDS), "SciSeqError"])
def test_errors_survive_pickle_and_copy(name):
    kind = getattr(errors, name)
    error = kind("it broke", where="row 3", hint="Mend it.")
    for other in (
        *(pickle.loads(pickle.dumps(error, protocol)) for protocol in range(6)),
        copy.copy(error),
        copy.deepcopy(error),
    ):
        assert type(other) is kind
        assert str(other) == str(error)
        assert (other.message, other.where, other.hint) == (
            "it broke",
            "row 3",
            "Mend it.",
        )
        assert other.args == error.args


def test_the_usual_way_of_exceptions_would_lose_place_and_hint():
    """Why the errors say themselves how they are rebuilt."""
    error = errors.InputError("it broke", where="row 3", hint="Mend it.")
    kind, arguments = ValueError.__reduce__(error)[:2]
    assert str(kind(*arguments)) == "it broke"


def test_errors_come_back_from_workers_with_their_cause():
    def work():
        try:
            raise KeyError("deep")
        except KeyError as cause:
            raise errors.DataQualityError("it broke", where="row 3") from cause

    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(errors.DataQualityError) as caught,
    ):
        pool.submit(work).result()
    assert isinstance(caught.value.__cause__, KeyError)


def test_not_fitted_is_that_of_scikit_learn():
    from sklearn.exceptions import NotFittedError

    assert errors.NotFittedError is NotFittedError
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = errors.Nonsense


def test_errors_import_nothing_heavy():
    code = (
        "import sys, sciseq.errors; "
        "assert not {'numpy', 'sklearn', 'torch', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "allowed", "found"),
    [
        ("horizn", ["horizon", "lookback"], "Did you mean 'horizon'?"),
        ("HORIZON", ["horizon"], "Did you mean 'horizon'?"),
        ("etth1", ["ETTh1", "ETTm1"], "Did you mean 'ETTh1'?"),
        ("zzz", ["horizon"], ""),
        ("x", [], ""),
        (12, [10, 12], "Did you mean '12'?"),
        (None, ["none", "mean"], "Did you mean 'none'?"),
    ],
)
def test_the_nearest_name(name, allowed, found):
    assert nearest_name(name, allowed) == found
