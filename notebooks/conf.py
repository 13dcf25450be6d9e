"""The documentation site: `sphinx-build -W notebooks build/site` (pip install ".[docs]")."""

from __future__ import annotations

import inspect
from importlib import metadata
from pkgutil import resolve_name
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.inspect import stringify_signature
from sphinx.util.nodes import make_refnode

from dsr import Layer
from dsr.nn.neurons import Neuron

project = "dsr"
author = "The dsr developers"
copyright = "the dsr developers, MIT licence"
version = release = metadata.version("dsr")
html_title = f"dsr {version}"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["**.ipynb_checkpoints"]

# pages and notebooks
nb_execution_mode = "off"  # the outputs are those in the files: tests run the code, in small form
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = ">>> "

# the API: signatures without types, which the docstrings have in words
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autosummary_generate = False
numpydoc_show_class_members = False
default_role = "py:obj"  # `name` in a docstring
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", r"\w+"),  # arguments; `elsewhere` judges what has a dot in it
    ("py:class", r"(numpy|collections)\..*"),
]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/spikes.svg"
html_theme_options = {"light_logo": "spikes.svg", "dark_logo": "spikes.svg", "sidebar_hide_name": False}
html_copy_source = False
html_show_sphinx = False
pygments_dark_style = "github-dark"


def formula(translator: Any, node: Any, block: bool) -> None:
    """A formula as MathML: browsers draw it without a script, and without a network."""
    markup = tex2mathml(node.astext().replace(r"\dots", r"\ldots"), as_block=block)
    translator.body.append(f'<div class="formula">{markup}</div>' if block else markup)
    raise nodes.SkipNode


def inline_formula(translator: Any, node: Any) -> None:
    """``$...$``."""
    formula(translator, node, False)


def block_formula(translator: Any, node: Any) -> None:
    """``$$...$$``."""
    formula(translator, node, True)


def links_on_site(app: Any, name: str, source: list[str]) -> None:
    """Files beside this folder, to which pages link when they are read in the repository, are pages here."""
    source[0] = source[0].replace("](../CONTRIBUTING.md)", "](contributing.md)")


def kinds_of(kind: type) -> set[type]:
    """All classes below one."""
    return {inner for below in kind.__subclasses__() for inner in {below, *kinds_of(below)}}


LAYERS = {kind.__qualname__ for kind in kinds_of(Layer) - {Neuron}}
PROTOCOL = {name for kind in (Layer, Neuron) for name, member in vars(kind).items() if callable(member)}


def said_once(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """What every layer has is described at `dsr.Layer` and `Neuron`, not at each of them."""
    owner = getattr(member, "__qualname__", "").rpartition(".")[0]
    return True if owner in LAYERS and name in PROTOCOL else None


def signature(app: Any, what: str, name: str, member: Any, options: Any, given: str, returns: str) -> Any:
    """Of a layer, that of its ``__init__``: autodoc takes ``Layer.__new__``."""
    if given == "(*args, **kwargs)":  # a protocol
        return "", None
    if what != "class" or not issubclass(member, Layer):
        return None
    if member.__init__ is object.__init__:
        return "()", None
    return stringify_signature(inspect.signature(member), show_annotation=False, show_return_annotation=False), None


def elsewhere(app: Any, environment: Any, node: Any, shown: Any) -> Any:
    """A name in a docstring that is on no page by that name: `Network.forward` is one of `dsr`; others must exist."""
    target = node.get("reftarget", "").removesuffix("()")
    if node.get("refdomain") != "py" or "." not in target:
        return None
    found = environment.domains.python_domain.find_obj(environment, "", "", f"dsr.{target}", "obj", 0)
    if found:
        name, entry = found[0]
        return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, name)
    for name in (target, f"dsr.{target}"):
        try:
            resolve_name(name)
        except (ImportError, AttributeError, ValueError):
            continue
        return shown
    return None


def names_are_links(app: Any, tree: Any, page: str) -> None:
    """`dsr.IF` in the text of a page leads to its place in the API."""
    objects = app.env.domains.python_domain.objects
    for node in list(tree.findall(nodes.literal)):
        entry = objects.get(node.astext()) if node.astext().startswith("dsr.") else None
        if entry and entry.docname != page and not isinstance(node.parent, nodes.reference):
            node.replace_self(make_refnode(app.builder, page, entry.docname, entry.node_id, node.deepcopy()))


def setup(app: Any) -> None:
    """Draw formulas as MathML, and so on."""
    app.add_html_math_renderer("mathml", (inline_formula, None), (block_formula, None))
    app.connect("source-read", links_on_site)
    app.connect("autodoc-skip-member", said_once)
    app.connect("autodoc-process-signature", signature)
    app.connect("missing-reference", elsewhere)
    app.connect("doctree-resolved", names_are_links)


html_math_renderer = "mathml"
