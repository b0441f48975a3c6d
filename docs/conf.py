"""Settings of the documentation; `make docs` builds it with warnings as errors."""

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import sciseq
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


def skip_foreign_member(
    app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what classes inherit from other packages: it is documented there."""
    module = getattr(member, "__module__", None) or getattr(
        getattr(member, "__objclass__", None), "__module__", "sciseq"
    )
    return None if module.partition(".")[0] == "sciseq" else True


def setup(app: Sphinx) -> None:
    """Connect the hook above."""
    app.connect("autodoc-skip-member", skip_foreign_member)
