"""Builds the site of several versions side by side, each from its own commit.

    sphinx-polyversion docs/site/poly.py build/versions

builds every tag that begins with "v" and the branch `main`, as far as they have a site. Each page
then shows the versions and leads to them; `index.html` leads to the newest tag.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from sphinx_polyversion import apply_overrides
from sphinx_polyversion.driver import DefaultDriver
from sphinx_polyversion.environment import Environment
from sphinx_polyversion.git import Git, GitRef, GitRefType, file_predicate
from sphinx_polyversion.sphinx import CommandBuilder, Placeholder

SITE = Path("docs/site")
SPHINX = (sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(SITE), ".")
OUTPUT_DIR = Path("build/versions")
SEQUENTIAL = MOCK = False

apply_overrides(globals())  # what the command line says


class InFolder(Environment):
    """Runs commands in the folder of the version, with the packages that are installed here."""

    async def run(self, *command: str, **options: Any) -> Any:
        """Run a command."""
        return await super().run(*command, cwd=self.path, **options)


class StrictDriver(DefaultDriver[GitRef, InFolder, Any]):
    """Stops where a version cannot be built: its name would be a link that leads nowhere."""

    def build_failed(self, rev: GitRef, exc_info: Any) -> NoReturn:
        """Stop."""
        raise SystemExit(f"{rev.name} cannot be built") from exc_info[1]


def newest_first(versions: Any) -> list[str]:
    """The tags by date, then the branch."""
    ordered = sorted(versions, key=lambda ref: (ref.type_ == GitRefType.TAG, ref.date))
    return [ref.name for ref in reversed(ordered)]


root = Git.root(Path(__file__).parent)
StrictDriver(
    root,
    Path(OUTPUT_DIR).resolve(),
    vcs=Git(
        branch_regex="main",
        tag_regex="v.*",
        predicate=file_predicate([SITE / "conf.py"]),
    ),
    builder=CommandBuilder(
        ".",
        [
            *(sys.executable, "-m", "sphinx", "-W", "-q", "-c", str(SITE), "."),
            Placeholder.OUTPUT_DIR,
        ],
    ),
    env=InFolder.factory(),
    data_factory=lambda driver, version, _: {
        "versions": newest_first(driver.targets),
        "this_version": version.name,
    },
    root_data_factory=lambda driver: {"newest": newest_first(driver.builds)[0]},
    template_dir=root / SITE / "templates" / "versions",
).run(MOCK, SEQUENTIAL)
