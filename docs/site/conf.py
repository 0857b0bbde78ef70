"""Builds the documentation site; CONTRIBUTING.md tells how.

The source folder is the repository, so that a link of a page leads to the same file here and on
GitHub.
"""

from __future__ import annotations

import os
import sys
import warnings
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]  # this checkout, not another one that is installed

import lavis_dynrefer  # noqa: E402  the path first

warnings.filterwarnings("ignore", category=FutureWarning)  # of what LAVIS imports

project = "lavis_dynrefer"
author = "lavis_dynrefer authors"
copyright = f"{date.today().year}, {author}"
release = version = lavis_dynrefer.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "site_navigation",
    "site_reference",
]
root_doc = "README"
FOLDERS = ("docs", "projects", "lavis_dynrefer")  # the others are not searched for pages
include_patterns = [
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md"),
    *("docs/**.md", "projects/**.md", "lavis_dynrefer/assets/**.md"),
]
exclude_patterns = [
    *(path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in FOLDERS),
    "**/__pycache__",
]

# Headings have the anchors that GitHub gives them.
myst_heading_anchors = 6
myst_enable_extensions = ["attrs_block"]

default_role = "name"  # `of site_reference`: a link where the name is documented, else code
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"ImageInput": "lavis_dynrefer.images.ImageInput"}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
smartquotes = False  # "--box" is an option
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"lavis_dynrefer {release}"
html_static_path = ["static"]
html_css_files = ["site.css"]
templates_path = ["templates"]
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
if "POLYVERSION_DATA" in os.environ:  # one of several versions, see poly.py
    from sphinx_polyversion import load

    load(globals())  # the names for sidebar/versions.html
copybutton_exclude = ".linenos, .gp, .go"
