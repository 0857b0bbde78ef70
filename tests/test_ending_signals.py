"""Signals are handled within a block, and as before after it."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from lavis_dynrefer.ending_signals import NAMES, handling

KNOWN = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


def handlers():
    return [signal.getsignal(one) for one in KNOWN]


@pytest.fixture
def ignored_hangup():
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None:
        yield None
        return
    former = signal.signal(hangup, signal.SIG_IGN)
    yield hangup
    signal.signal(hangup, former)


def test_signals_are_handled_within_the_block(ignored_hangup):
    before, received = handlers(), []
    sent = [one for one in KNOWN if one not in (ignored_hangup, signal.SIGINT)]

    with handling(lambda number, _: received.append(number), but="SIGINT"):
        for one in sent:
            signal.raise_signal(one)
        assert signal.getsignal(signal.SIGINT) == before[KNOWN.index(signal.SIGINT)]
        if ignored_hangup:  # as under nohup
            signal.raise_signal(ignored_hangup)

    assert received == sent
    assert handlers() == before


def test_nothing_changes_in_other_threads():
    def inside():
        with handling(lambda number, _: None):
            return handlers()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == handlers()
