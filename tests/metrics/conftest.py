import pytest

from lavis_dynrefer.metrics.java_tools import Meteor


@pytest.fixture(scope="session")
def meteor():
    """One METEOR for all tests, as it takes seconds to start; on a machine that speaks German."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")
        running = Meteor()
    with running:
        yield running
