"""Settings of the documentation site: ``make docs`` builds it into ``build/docs``."""

from __future__ import annotations

import re
from typing import Any

import daskps

project = "daskps"
author = "daskps developers"
copyright = "daskps developers"
release = version = daskps.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_click",
]
exclude_patterns = ["conf.py"]
default_role = "code"

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
numpydoc_show_class_members = False  # autodoc does it
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "daskps"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False, "show_prev_next": False}

_ROOT_PAGES = "README|CHANGELOG|CONTRIBUTING"


def _from_page(app: Any, docname: str, source: list[str]) -> None:
    """Let links to files above the documentation lead to the pages that show them."""
    source[0] = re.sub(rf"\]\((?:\.\./)+({_ROOT_PAGES})\.md", r"](/project/\1.md", source[0])


def _from_root(app: Any, path: Any, docname: str, content: list[str]) -> None:
    """Let links of those files, which stand at the root, lead to pages of the documentation."""
    text = re.sub(r"\]\(docs/", r"](/", content[0])
    text = re.sub(rf"\]\(({_ROOT_PAGES})\.md", r"](/project/\1.md", text)
    content[0] = re.sub(r"\]\(LICENSE\)", r"](../../LICENSE)", text)


def _of_scikit_learn(
    app: Any, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out what estimators have from scikit-learn: its own reference explains it."""
    module = getattr(obj, "__module__", None) or ""
    return True if module.startswith("sklearn") or name.endswith("_request") else None


def setup(app: Any) -> None:
    """Connect what is above."""
    app.connect("source-read", _from_page)
    app.connect("include-read", _from_root)
    app.connect("autodoc-skip-member", _of_scikit_learn)
