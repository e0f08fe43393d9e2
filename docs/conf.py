"""The site: pages in Markdown, notebooks run while it is built, the reference from docstrings, nothing remote."""

import re
from pathlib import Path
from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx

project = html_title = "leaf"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "notebooks/*.ipynb", "generated/shipped", "generated/figures.md"]
templates_path = ["_templates"]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_sphinx = html_show_copyright = html_copy_source = False
pygments_dark_style = "github-dark"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = nb_execution_show_tb = True

strip_signature_backslash = True  # so that Napoleon keeps the underscore of with_
autodoc_inherit_docstrings = False  # not torch's, which refer to torch's pages
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_use_ivar = True
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 100


def list_figures(app: Sphinx) -> None:
    """Write generated/figures.md: the figures that `make docs` drew of the shipped results, as far as there are any."""
    generated = Path(app.srcdir, "generated")
    figures = sorted(file.relative_to(app.srcdir) for file in generated.glob("shipped/figures/**/*.svg"))
    lines = [f"## {' '.join(file.with_suffix('').parts[3:])}\n\n![]({file})\n" for file in figures]
    generated.mkdir(exist_ok=True)
    (generated / "figures.md").write_text("\n".join(lines) or "None were drawn for this build.\n", encoding="utf-8")


def visit_math(self: Any, node: Any) -> None:
    """Write a formula as MathML, which browsers show by themselves."""
    block = node.tagname == "math_block"
    formula = tex2mathml(node.astext(), as_block=block)
    self.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise SkipNode


def skip_fields(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a named tuple's fields say of themselves."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


values: dict[str, list[str]] = {}
"""What has been said of module variables, attributes and properties, before Napoleon read it."""


def before_napoleon(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Give a docstring's line on its source a paragraph of its own, and keep what is no business of Napoleon's."""
    for place in reversed([i for i, line in enumerate(lines) if line.startswith("Source: ")]):
        lines.insert(place, "")
    if what in ("data", "attribute", "property"):
        values[name] = list(lines)


def after_napoleon(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put back what Napoleon took for a type, the text before a colon; keep Sphinx from taking a name for another's."""
    if name in values:
        lines[:] = values.pop(name)
    lines[:] = [re.sub(r"^:ivar [^:]+:", lambda names: names[0].replace(", ", ","), line) for line in lines]


def drop_long_values(app: Sphinx, doctree: Any) -> None:
    """Leave out what tables and arrays hold, as Python would write it."""
    for node in list(doctree.findall(desc_annotation)):
        if node.astext().startswith(" = ") and len(node.astext()) > 60:
            node.parent.remove(node)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_math, None))
    app.connect("builder-inited", list_figures)
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("doctree-read", drop_long_values)
