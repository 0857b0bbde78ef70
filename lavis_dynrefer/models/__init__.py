"""The model and its parts. Importing one of them refuses a transformers that answers wrongly."""

from importlib.metadata import PackageNotFoundError, version

from lavis_dynrefer.errors import MissingPackageError

OLDEST_TRANSFORMERS = (4, 26)
REFUSED_TRANSFORMERS = (6, 0)  # never tried


def check_transformers() -> None:
    """Refuse versions of transformers on which models fail or answer wrongly.

    Raises:
        MissingPackageError: names the version found, the range expected and the command that cures
            it.
    """
    try:
        found = version("transformers")
    except PackageNotFoundError:
        return  # told by what needs it
    if not OLDEST_TRANSFORMERS <= tuple(map(int, found.split(".")[:2])) < REFUSED_TRANSFORMERS:
        expected = f">={'.'.join(map(str, OLDEST_TRANSFORMERS))},<{REFUSED_TRANSFORMERS[0]}"
        raise MissingPackageError(
            f"lavis_dynrefer needs transformers {expected}, found {found}; "
            f"pip install 'transformers{expected}'"
        )


check_transformers()
