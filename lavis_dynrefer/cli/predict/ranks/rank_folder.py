"""How processes that share a task meet and watch each other: by small files in a shared folder.

Nothing here needs a network, locks, or clocks that agree, so it works on NFS and between machines
that share no more than a folder. Every process has one file, which it alone writes, by renaming:
its state, with a number that grows every two seconds. A process whose number has stopped is dead;
on the same machine its process id tells at once.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lavis_dynrefer.cli.predict.ranks.rank_variables import Rank
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.formats.json_stream import replace_bytes
from lavis_dynrefer.living_processes import kernel, lives

RANKS = ".ranks"  # folder in the output folder
_BEAT = 2.0  # seconds
_POLL = 0.1
WAITING, WORKING, DONE, FAILED = "waiting", "working", "done", "failed"
CURE = "Run the same command again, with any number of processes, to continue"


class RankError(InputError):
    """Another process has failed or ended; what it has answered is kept."""


class RefusedError(RankError):
    """Rank 0 gives no work, and says why itself."""


class RankFolder:
    """The states of all processes; this one writes its own.

    Args:
        folder: the output folder, the same for all.
        own: this process.
        about: name of something found -> what it is in this process; must be the same in all.
        patience: seconds after which a process is dead that has not shown itself or been heard of.
    """

    def __init__(self, folder: Path, own: Rank, about: Mapping[str, Any], patience: float) -> None:
        self.own = own
        self.nonce = secrets.token_hex(8)
        self._output = folder
        self._folder = folder / RANKS
        self._patience = patience
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "launch": own.launch,
            "nonce": self.nonce,
            "machine": socket.gethostname(),
            "kernel": kernel(),
            "pid": os.getpid(),
            "beat": 0,
            "about": dict(about),
            "state": WAITING,
        }
        # rank -> last nonce and beat, seconds of watching since, and when it was looked at
        self._heard: dict[int, tuple[Any, float, float]] = {}
        self._known: dict[int, str] = {}  # rank -> nonce of those that have met

    @property
    def part(self) -> Path:
        """File for the answers of this process."""
        return self._folder / f"part-{self.own.rank}-{self.nonce}.jsonl"

    @contextmanager
    def beating(self) -> Iterator[None]:
        """While entered, the others see that this process lives."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(_BEAT):
                with suppress(InputError):  # a full disk: to be told by whoever writes answers
                    self.update()

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def update(self, **changes: Any) -> None:
        """Write the state of this process, with changes."""
        with self._lock:
            self._state.update(changes, beat=self._state["beat"] + 1)
            replace_bytes(self._file(self.own.rank), json.dumps(self._state).encode())

    def count(self, **changes: Any) -> None:
        """Change the state of this process; the next beat writes it."""
        with self._lock:
            self._state.update(changes)

    # ---- rank 0

    def gather(self) -> None:
        """Wait for the others, who must have found the same; for rank 0.

        Raises:
            RankError: some are not seen, or have found something else. They are told.
        """
        for path in self._folder.glob("*.json"):  # of a start before
            path.unlink(missing_ok=True)
        self.update()
        states: dict[int, dict[str, Any]] = {}
        missing, begin = set(range(1, self.own.world)), time.monotonic()
        while missing:
            for rank in sorted(missing):
                state = self._read(rank)
                if state is not None and self._is_new(state):
                    missing.remove(rank)
                    states[rank] = state
            self._known = {rank: state["nonce"] for rank, state in states.items()}
            if missing and time.monotonic() - begin > self._patience:
                self._refuse(
                    f"{_names(missing)} of {self.own.world} did not show up in {self._output} "
                    f"within {self._patience:.0f} s. Either they have failed, or they see another "
                    "folder under this name: all machines must share it"
                )
            time.sleep(_POLL)
        for rank, state in states.items():
            for name, found in self._state["about"].items():
                other = state["about"].get(name)
                if other != found:
                    self._refuse(
                        f"rank {rank} on {state['machine']} has other {name} than rank 0 on "
                        f"{self._state['machine']}: {other!r:.200}, not {found!r:.200}; all "
                        "processes need the same command and the same files"
                    )

    def _is_new(self, state: Mapping[str, Any]) -> bool:
        """Whether a process of this start waits for work.

        torchrun without a rendezvous starts under the same name each time, and a process of an
        earlier start may still live: it has had its work, and its answers are joined already.
        """
        own = bool(state["launch"] == self.own.launch)
        return own and state["state"] == WAITING and not self._ended(state)

    def start(self, **plan: Any) -> None:
        """Tell the others to begin; for rank 0."""
        self.update(state=WORKING)
        self._tell(plan=plan)

    def _refuse(self, problem: str) -> None:
        self._tell(problem=problem)
        raise RankError(problem)

    def _tell(self, **message: Any) -> None:
        content = {"nonces": {**self._known, self.own.rank: self.nonce}, **message}
        replace_bytes(self._folder / "start.json", json.dumps(content).encode())

    def wait_for_others(self) -> dict[int, dict[str, Any]]:
        """Wait until the others are done; for rank 0. Returns their states.

        Raises:
            RankError: some have failed or ended.
        """
        while True:
            states = {rank: self._read(rank) or {} for rank in self._known}
            waited = {rank for rank, state in states.items() if state.get("state") != DONE}
            lost = {rank for rank in waited if self._is_lost(rank)}
            if not waited:
                return states
            if lost == waited:  # not before: the others finish their work
                raise RankError(f"{self.progress()}\n{CURE}")
            time.sleep(_POLL)

    def parts(self, states: Mapping[int, Any]) -> list[Path]:
        """The files of answers of processes in this state."""
        return [
            self._folder / f"part-{rank}-{state['nonce']}.jsonl" for rank, state in states.items()
        ]

    # ---- the others

    def find_rank_0(self) -> None:
        """Wait until rank 0 shows itself; nothing is written before.

        Raises:
            RankError: it does not.
        """
        begin = time.monotonic()
        while True:
            state = self._read(0)
            if state is not None and state["launch"] == self.own.launch and not self._ended(state):
                return
            if time.monotonic() - begin > self._patience:
                raise RankError(
                    f"rank 0 did not show up in {self._output} within {self._patience:.0f} s. "
                    "Either it has failed, or it is still reading the answers of earlier runs "
                    "(raise --rank-timeout), or it sees another folder under this name: all "
                    "machines must share it"
                )
            time.sleep(_POLL)

    def follow(self) -> dict[str, Any]:
        """Show up, and wait until rank 0 says what is to be done; not for rank 0.

        Returns:
            What rank 0 gave to `start`.

        Raises:
            RankError: rank 0 has ended or has refused.
        """
        while True:
            told = _read_json(self._folder / "start.json") or {}
            if told.get("nonces", {}).get(str(self.own.rank)) == self.nonce:
                break
            shown = self._read(self.own.rank)
            if shown is None or shown["nonce"] != self.nonce:  # rank 0 has cleared the folder
                self.update()
            if self._is_lost(0):
                raise RankError("rank 0 has ended before it gave any work; it says why")
            time.sleep(_POLL)
        if "problem" in told:
            raise RefusedError(told["problem"])
        self._known = {int(rank): nonce for rank, nonce in told["nonces"].items()}
        self.update(state=WORKING)
        plan: dict[str, Any] = told["plan"]
        return plan

    # ---- all

    def progress(self) -> str:
        """How far each process has come, and which have ended."""
        lines = []
        for rank in range(self.own.world):
            own = rank == self.own.rank
            state = self._state if own else self._read(rank) or {}
            line = f"rank {rank} on {state.get('machine', '?')}: "
            if "of" in state:
                line += f"{state['answered']:,} of its {state['of']:,} images are answered"
            else:
                line += "not begun"
            if state.get("state") == FAILED:
                line += f"; failed: {state['problem']}"
            elif not own and state.get("state") != DONE and self._is_lost(rank):
                line += "; it has ended without a word: killed, or its machine is gone"
            lines.append(line)
        return "\n  ".join(["not all processes have finished", *lines])

    def is_lowest(self) -> bool:
        """Whether all processes before this one have ended, as far as can be seen."""
        return all(self._is_lost(rank) for rank in range(self.own.rank))

    def close(self) -> None:
        """Leave nothing behind if no work was given."""
        with suppress(OSError):
            if self._state["state"] == WAITING:
                self._file(self.own.rank).unlink(missing_ok=True)
            self._folder.rmdir()

    def remove(self) -> None:
        """Remove the folder at the end of all work; for rank 0."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_lost(self, rank: int) -> bool:
        """Whether a process has failed or ended, but not finished."""
        state = self._read(rank)
        if state is not None and state["state"] in (DONE, FAILED):
            return state["state"] == FAILED
        if state is not None and self._ended(state):
            return True
        heard, now = state and (state["nonce"], state["beat"]), time.monotonic()
        last, silent, looked = self._heard.get(rank, (None, 0.0, now))
        # While all processes are suspended, as by Slurm, nobody is silent.
        silent = silent + min(now - looked, _BEAT) if heard == last else 0.0
        self._heard[rank] = (heard, silent, now)
        return silent > self._patience

    def _ended(self, state: Mapping[str, Any]) -> bool:
        """Whether a process of this machine has ended; False of those of other machines."""
        seen = state["kernel"] and state["kernel"] == self._state["kernel"]
        return bool(seen) and not lives(state["pid"])

    def _file(self, rank: int) -> Path:
        return self._folder / f"{rank}.json"

    def _read(self, rank: int) -> dict[str, Any] | None:
        state = _read_json(self._file(rank))
        known = self._known.get(rank)
        return state if known is None or (state and state["nonce"] == known) else None


def parts_of(folder: Path) -> list[Path]:
    """Files of answers that the processes of an earlier run left in an output folder."""
    return sorted((folder / RANKS).glob("part-*.jsonl"))


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there; or NFS, about a file that was replaced meanwhile
        return None
    return content


def _names(ranks: set[int]) -> str:
    shown = ", ".join(map(str, sorted(ranks)[:20]))
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}{', ...' * (len(ranks) > 20)}"
