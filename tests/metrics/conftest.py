import pytest

from lavis_dynrefer.metrics.java_tools import Meteor


@pytest.fixture(scope="session")
def meteor():
    """One METEOR for all tests: it takes seconds to start."""
    with Meteor() as running:
        yield running
