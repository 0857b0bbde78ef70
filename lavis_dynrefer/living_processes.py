"""Other processes of this machine: whether they live, and which is which; only Linux says."""

from __future__ import annotations

import os
from pathlib import Path


def kernel() -> str:
    """A text that is the same in processes that see each other's ids; empty where unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def lives(pid: int) -> bool:
    """Whether a process of this `kernel` lives."""
    status = _status(pid)
    return bool(status) and status[0] not in ("Z", "X")  # dead, but its parent waits


def identity(pid: int) -> str:
    """A text for a process that no other one has ever had or will have; empty where unknown."""
    status, own = _status(pid), kernel()
    return f"{own} {pid} {status[19]}" if status and own else ""  # its start, in ticks after boot


def _status(pid: int) -> list[str]:
    """State of a process, and what follows it in Linux's list; empty without such a process."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return line.rpartition(")")[2].split()
