"""Settings of the documentation; `make docs` builds it with warnings as errors."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import sciseq
from sciseq.generation.method_card import MethodCard, method_card_of
from sciseq.registry import METHODS, Method

HERE = Path(__file__).parent

project = "sciseq"
author = "sciseq developers"
project_copyright = "2026, sciseq developers"
version = release = sciseq.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
# Every reference that a page makes must lead somewhere.
nitpicky = True
nitpick_ignore_regex = [
    # Other packages' names: the build reads no inventory from the network.
    (r"py:.*", r"(?!sciseq).*"),
]

autosummary_generate = True
autodoc_default_options = {
    "members": True,
    "inherited-members": True,
}
autodoc_member_order = "groupwise"
# The types stand in the Parameters sections, with shapes and units.
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
# As plain text: "array of shape (n, k)" is no name to link to.
napoleon_use_param = False

myst_enable_extensions = [
    "amsmath",
    "colon_fence",
    "deflist",
    "dollarmath",
    "substitution",
]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "furo"
html_title = f"sciseq {release}"


def methods_table() -> str:
    """Return the registry as a Markdown table: a page that never lags behind it."""
    rows = [
        "| name | estimator | method | paper | status |",
        "| --- | --- | --- | --- | --- |",
    ]
    return "\n".join(rows + [_table_row(method) for method in METHODS])


def _table_row(method: Method) -> str:
    has_page = (HERE / "methods" / f"{method.name}.md").exists()
    title = f"[{method.title}]({method.name}.md)" if has_page else method.title
    return (
        f"| `{method.name}` | {{py:class}}`~sciseq.{method.class_name}` | {title} "
        f"| {method.paper} | {method.status} |"
    )


myst_substitutions = {"methods_table": methods_table()}


GENERATORS = [method for method in METHODS if method.data == "generation"]


def generators_table() -> str:
    """Return one row for each generator: order, cache, score and use."""
    rows = ["| method | tokens come | cache | score |", "| --- | --- | --- | --- |"]
    for method in GENERATORS:
        card = method_card_of(method)
        rows.append(
            f"| [{method.title}](#{method.name}) | {card.order} | {card.cache} "
            f"| {card.score} |"
        )
    return "\n".join(rows)


def generators_text() -> str:
    """Return a section for each generator."""
    return "\n\n".join(
        _generator_section(method, method_card_of(method)) for method in GENERATORS
    )


def _generator_section(method: Method, card: MethodCard) -> str:
    parts = [
        f"({method.name})=\n## {method.title}",
        f"{{py:class}}`~sciseq.{method.class_name}`, `{method.name}` on the command "
        f"line. Paper: {method.paper}.",
        card.idea,
    ]
    if (HERE / "methods" / f"{method.name}.md").exists():
        parts.append(f"Its page: {{doc}}`methods/{method.name}`.")
    if card.picture is not None:
        values = ", ".join(f"{name}={one!r}" for name, one in card.picture.items())
        parts.append(
            f"![{method.title}: what is hidden, who reads whom, and the passes]"
            f"(pictures/generators/{method.name}.png)"
        )
        parts.append(f"`{method.class_name}({values})`")
    settings = [f"| {name} | {text} |" for name, text in card.settings().items()]
    parts.append("\n".join(["| part | setting |", "| --- | --- |", *settings]))
    parts.append(f"**Good for.** {card.good_for}")
    parts.append(f"**Not for.** {card.not_for}")
    return "\n\n".join(parts)


def write_generators(app: Sphinx, docname: str, source: list[str]) -> None:
    """Print the generators of the registry into their page as it is read."""
    if docname == "generators":
        text = source[0].replace("<!-- table of generators -->", generators_table())
        source[0] = text.replace("<!-- generators -->", generators_text())


def skip_foreign_member(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what classes inherit from other packages: it is documented there."""
    module = getattr(member, "__module__", None) or getattr(
        getattr(member, "__objclass__", None), "__module__", "sciseq"
    )
    return None if module.partition(".")[0] == "sciseq" else True


def setup(app: Sphinx) -> None:
    """Connect the hooks above."""
    app.connect("source-read", write_generators)
    app.connect("autodoc-skip-member", skip_foreign_member)
