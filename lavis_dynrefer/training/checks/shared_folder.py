"""Whether all processes of a run see the same output folder."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

import lavis  # noqa: F401  first, for threads
from lavis.common.dist_utils import is_dist_avail_and_initialized

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.training.process_group import gather_on_main_process, on_main_process

PATIENCE = 60.0  # seconds, for which NFS may keep it a secret that there is a new file


def check_shared(folder: Path, patience: float = PATIENCE) -> None:
    """Refuse folders of the same name on different machines; called by all processes.

    Args:
        folder: exists on each machine.
        patience: seconds to wait for a file that rank 0 writes.

    Raises:
        InputError: some see another folder; names their ranks and machines.
        OtherRankError: in the processes other than rank 0.
    """
    if not is_dist_avail_and_initialized():
        return
    token = folder / on_main_process(lambda: f".seen_by_rank_0_{secrets.token_hex(8)}")
    on_main_process(token.touch, share=False)
    seen = gather_on_main_process((socket.gethostname(), _appears(token, patience)))

    def judge() -> None:
        token.unlink(missing_ok=True)
        blind = [f"{rank} on {name}" for rank, (name, sees) in enumerate(seen or ()) if not sees]
        if blind:
            raise InputError(
                f"run.output_dir: under the name {folder} rank {', '.join(blind)} does not see the "
                f"folder of rank 0 on {socket.gethostname()}; all processes must share it, for "
                "instance by NFS"
            )

    on_main_process(judge)


def _appears(path: Path, patience: float) -> bool:
    end = time.monotonic() + patience
    while path.name not in (other.name for other in path.parent.iterdir()):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
