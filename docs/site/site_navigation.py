"""The navigation of the site: the sections of docs/README.md, in their order.

A section's heading is the caption of its group. A link to a whole page puts that page there, once;
a link to a part of a page does not.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

INDEX = "docs/README.md"
_SECTION = re.compile(r"^## (.+)$", re.M)
_LINK = re.compile(r"\]\(([^)#\s:]+)\.md\)")


def navigation(index: str) -> dict[str, list[str]]:
    """The pages of each section, each page once.

    Args:
        index: text of docs/README.md.

    Returns:
        Heading -> pages as Sphinx names them, such as "docs/tour"; the front page is left out.
    """
    _, *parts = _SECTION.split(index)
    listed = {"README"}
    groups: dict[str, list[str]] = {}
    for heading, text in zip(parts[::2], parts[1::2]):
        found = (
            posixpath.normpath(posixpath.join(posixpath.dirname(INDEX), target))
            for target in _LINK.findall(text)
        )
        groups[heading] = [page for page in dict.fromkeys(found) if page not in listed]
        listed.update(groups[heading])
    return groups


def _add_navigation(app: Any, page: str, source: list[str]) -> None:
    if page != app.config.root_doc:
        return
    app.env.note_dependency(INDEX)  # so that a row there rebuilds the navigation
    index = (Path(app.srcdir) / INDEX).read_text(encoding="utf-8")
    groups = navigation(index)
    first = next(iter(groups))
    groups[first].insert(0, INDEX.removesuffix(".md"))
    for heading, pages in groups.items():
        lines = ["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```"]
        source[0] += "\n" + "\n".join(lines) + "\n"


def _copy_front_page(app: Any, failure: Exception | None) -> None:
    """`index.html` is what a server and a person open first."""
    if failure is None and app.builder.format == "html":
        folder = Path(app.outdir)
        shutil.copyfile(folder / f"{app.config.root_doc}.html", folder / "index.html")


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", _add_navigation)
    app.connect("build-finished", _copy_front_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
