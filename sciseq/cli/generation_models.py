"""Methods and saved models of ``sciseq generate``, and what they can be asked for."""

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from sciseq.errors import CapabilityError, InputError, SciSeqError, nearest_name
from sciseq.registry import METHODS, Method

__all__ = [
    "as_conditions",
    "find_method",
    "load_generator",
    "method_class",
    "options_for",
    "told_by_options",
]

# Places that the library names, and the options they come from.
_OPTION_OF = {
    "condition": "--condition",
    "device": "--device",
    "n": "--number",
    "sample": "--temperature",
    "template": "--template",
    "y": "--condition",
}


def method_class(method: Method) -> type[Any]:
    """Return the class of a method."""
    found: type[Any] = getattr(
        importlib.import_module(method.module_name), method.class_name
    )
    return found


def find_method(name: str) -> Method:
    """Return the method of a name that can be fitted on the command line.

    Parameters
    ----------
    name : str
        Name in the registry, or of the class.

    Raises
    ------
    InputError
        When there is none.
    """
    known = [method for method in METHODS if method.data == "generation"]
    for method in known:
        if name in (method.name, method.class_name):
            if _is_fitted_here(method):
                return method
            raise InputError(
                f"{method.name} is fitted in Python, not on the command line",
                where="--method",
                hint=f"See sciseq.{method.class_name}.",
            )
    names = [method.name for method in known if _is_fitted_here(method)]
    raise InputError(
        f"no generator is called {name!r}, there are {', '.join(names)}",
        where="--method",
        hint=nearest_name(name, names) or None,
    )


def _is_fitted_here(method: Method) -> bool:
    # Baselines and recommenders do not take what the command line passes on.
    found = method_class(method)
    return hasattr(found, "sample") and hasattr(found, "device")


def load_generator(path: Path, device: str) -> Any:
    """Load a fitted generator.

    Parameters
    ----------
    path : Path
        What ``save`` wrote.
    device : str
        Where it will compute.

    Raises
    ------
    SciSeqError
        When it is no saved generator, or has no choice of device and one was named.
    """
    from sciseq.persistence import load
    from sciseq.training import resolve_device

    model = load(path)
    if not (hasattr(model, "sample") and hasattr(model, "score_samples")):
        raise InputError(
            f"{path} holds a {type(model).__name__}, which generates no sequences",
            where="MODEL",
            hint="Give a model that `sciseq generate fit` has saved.",
        )
    inner = _inner(model)
    if "device" in inner.get_params(deep=False):
        if device != "auto":  # a model goes on without it; who asks for one is told
            with told_by_options("MODEL"):
                resolve_device(device, precision=inner._device_precision())
        inner.set_params(device=device)
    elif device not in ("auto", "cpu"):
        raise InputError(
            f"a {type(model).__name__} has no choice of device, {device!r} was given",
            where="--device",
            hint="Leave the option out.",
        )
    return model


def _inner(model: Any) -> Any:
    """Return the model that computes: some stand around another."""
    return getattr(model, "generator_", model)


def options_for(call: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given, or refuse one that is not taken.

    Parameters
    ----------
    call : callable
        Method of a model.
    given : dict
        Values by name, None for what was not given.
    """
    taken = signature(call).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in taken.values())
    options = {name: value for name, value in given.items() if value is not None}
    for name in options:
        if name not in taken and not takes_all:
            owner = type(getattr(call, "__self__", None)).__name__
            raise CapabilityError(
                f"a {owner} takes no {name}",
                where=f"--{name}",
                hint="Leave the option out.",
            )
    return options


# ------------------------------------------------------------------------- conditions


def as_conditions(model: Any, words: Sequence[str] | None) -> Any:
    """Return what the words of conditions stand for: classes of the model, or numbers.

    Parameters
    ----------
    model : generator
        Fitted.
    words : sequence of str or None
        As they were written.

    Raises
    ------
    InputError
        For a word that is none of them.
    """
    coding = getattr(_inner(model), "condition_coding_", None)
    if words is None or coding is None:
        return words  # the model says that it has no conditions
    if getattr(coding, "has_several_rows", False):
        raise CapabilityError(
            "the conditions of this model are tables, which are given in Python",
            where="--condition",
        )
    read = _class_of if coding.classes is not None else _numbers_of
    known = coding.classes if coding.classes is not None else coding.n_features
    found = []
    for row, word in enumerate(words, start=1):
        try:
            found.append(read(word, known))
        except InputError as error:
            error.where = f"--condition, row {row}" if len(words) > 1 else "--condition"
            raise
    return found


def _class_of(word: str, classes: Sequence[Any]) -> Any:
    for one in classes:
        if word == str(one) or (
            isinstance(one, bool) and word.lower() == str(one).lower()
        ):
            return one
    with contextlib.suppress(ValueError):  # 1.0 is 1
        number = float(word)
        for one in classes:
            if not isinstance(one, str | bool) and one == number:
                return one
    raise InputError(
        f"{word!r} is no class of the model", hint=f"Classes are {list(classes[:20])}."
    )


def _numbers_of(word: str, n_features: int) -> list[float]:
    try:
        numbers = [float(one) for one in word.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != n_features:
        raise InputError(
            f"{word!r} is given, the conditions of this model are {n_features} "
            f"number{'s, with commas between them' if n_features > 1 else ''}"
        )
    return numbers


# ----------------------------------------------------------------------------- errors


@contextlib.contextmanager
def told_by_options(sequences: str) -> Iterator[None]:
    """Name the options in errors, instead of arguments in Python.

    Parameters
    ----------
    sequences : str
        Where sequences come from: a file or an option.
    """
    try:
        yield
    except SciSeqError as error:
        name, _, rest = (error.where or "").partition("[")
        place = sequences if name == "X" else _OPTION_OF.get(name)
        if place is not None:
            row = rest.partition("]")[0]
            number = f", sequence {int(row) + 1}" if row.isdigit() else ""
            error.where = f"{place}{number}"
        if error.hint:
            error.hint = _hint_by_options(error.hint)
        raise


def _hint_by_options(hint: str) -> str:
    hint = hint.replace("Fit with y.", "Fit with --condition.")
    hint = re.sub(r"\bdevice='([^']+)'", r"--device \1", hint)
    return re.sub(r"\b(max_length\b|[a-z]\w*=)", r"--set \1", hint)
