"""The import hook: when `lavis` is imported, lavis_dynrefer registers with it.

LAVIS has no entry points of its own. `import lavis_dynrefer` installs the hook; so does
lavis_dynrefer.pth at interpreter start-up, from the copy of this file at the top of site-packages.
It therefore imports only modules that every interpreter has already loaded.
LAVIS_DYNREFER_AUTOLOAD=0 disables it at start-up.
"""

import os
import sys

SWITCH = "LAVIS_DYNREFER_AUTOLOAD"


class LavisFinder:
    """A meta-path finder that finds nothing itself and acts on the single name `lavis`."""

    def __init__(self):
        self._searching = False

    def find_spec(self, name, path=None, target=None):
        """Let the other finders locate `lavis`, then arrange for the plugin to follow it."""
        if name != "lavis" or self._searching:
            return None
        self._searching = True  # this finder is one of those below
        try:
            found = (finder.find_spec(name, path, target) for finder in _modern(sys.meta_path))
            spec = next((spec for spec in found if spec is not None), None)
        finally:
            self._searching = False
        # A folder without __init__.py has no code to follow.
        if spec is not None and hasattr(spec.loader, "exec_module"):
            _follow(spec.loader)
        return spec


def install():
    """Put the finder first on sys.meta_path, once."""
    if not any(type(finder).__name__ == "LavisFinder" for finder in sys.meta_path):
        sys.meta_path.insert(0, LavisFinder())


def install_at_start_up():
    """Install the finder unless the environment switches it off."""
    if os.environ.get(SWITCH) != "0":
        install()


def _modern(finders):
    return [finder for finder in finders if hasattr(finder, "find_spec")]


def _follow(loader):
    """Make this one loader run the plugin around the execution of LAVIS."""
    execute = loader.exec_module
    loader.dynrefer_pending = True  # too early to register

    def exec_module(module):
        try:
            prepared = _attempt(_prepare)
            if prepared is None:
                execute(module)
                return
            with prepared:
                execute(module)
        finally:
            loader.dynrefer_pending = False
        _attempt(_register)

    loader.exec_module = exec_module


def _prepare():
    from contextlib import ExitStack

    import lavis_dynrefer  # before its modules: another thread may be importing it  # noqa: F401
    import lavis_dynrefer.models  # refuses some versions of transformers  # noqa: F401
    from lavis_dynrefer.host import compat

    stack = ExitStack()
    stack.enter_context(compat.lavis_importable())
    return stack


def _register():
    from lavis_dynrefer.host import registration

    registration.register()


def _attempt(action):
    """Run `action`; whatever goes wrong becomes a warning, so that LAVIS itself stays usable."""
    try:
        return action()
    except Exception as error:
        import warnings

        warnings.warn(
            f"lavis_dynrefer is not available in LAVIS: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
