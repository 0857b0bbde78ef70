"""What a frozen image encoder made of views, kept on disk for training that leaves it alone."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.precision import active_autocast
from lavis_dynrefer.paths import replace_file

logger = logging.getLogger(__name__)


class ViewCache:
    """Tokens of views by the pixels of the view; any number of processes may share a folder.

    A file is named by a checksum of the pixels and lies in a folder that is named by a checksum of
    the encoder's weights and by the format of its products, so that no view is ever answered with
    the tokens of other pixels or of another encoder.

    Args:
        folder: made if it is not there.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.found = self.encoded = 0  # views so far
        self._version = ""  # of the encoder, once known
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"run.feature_cache: {folder} cannot be made ({error})") from error

    def encode(self, backbone: Backbone, views: Tensor) -> Tensor:
        """What `backbone` gives for views (M, 3, S, S): read where it is known, else kept.

        Args:
            backbone: frozen, in eval mode, and the same in every call.
            views: on any device.
        """
        place = self._place(backbone, views.device)
        here = views.cpu().contiguous()
        paths = [place / _name(view) for view in here]
        known = {path: tokens for path in set(paths) if (tokens := _read(path)) is not None}
        self.found += sum(path in known for path in paths)
        rows = {path: row for row, path in enumerate(paths) if path not in known}
        self.encoded += len(rows)
        if rows:
            tokens = backbone(views[list(rows.values())])
            known.update(zip(rows, tokens.float().cpu()))
            self._keep({path: known[path] for path in rows})
        return torch.stack([known[path] for path in paths]).to(views.device)

    def bytes_kept(self) -> int:
        """Of all encoders together."""
        return sum(path.stat().st_size for path in self.folder.glob("*/*/*.npy"))

    def _place(self, backbone: Backbone, device: torch.device) -> Path:
        if not self._version:
            checksum = hashlib.blake2b(digest_size=12)
            for name, value in backbone.state_dict().items():
                checksum.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                checksum.update(value.detach().cpu().contiguous().view(torch.uint8).numpy())
            self._version = checksum.hexdigest()
        dtype = str(active_autocast(device) or torch.float32).replace("torch.", "")
        return self.folder / f"{self._version}_{dtype}"

    def _keep(self, found: dict[Path, Tensor]) -> None:
        for path, tokens in found.items():
            partial = path.with_name(f"{path.stem}.{os.getpid()}.part")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with partial.open("wb") as file:
                    np.save(file, tokens.numpy())
                replace_file(partial, path)
            except OSError as error:
                partial.unlink(missing_ok=True)
                raise InputError(
                    f"run.feature_cache: {path} cannot be written ({error}); make room, or leave "
                    "the option out"
                ) from error


def _name(view: Tensor) -> str:
    checksum = hashlib.blake2b(f"{view.dtype} {tuple(view.shape)}".encode(), digest_size=20)
    checksum.update(view.numpy())
    digest = checksum.hexdigest()
    return f"{digest[:2]}/{digest[2:]}.npy"


def _read(path: Path) -> Tensor | None:
    """None if there is no such file, or none that can be read."""
    try:
        return torch.from_numpy(np.load(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:  # after a power failure
        logger.warning("run.feature_cache: %s is encoded again (%s)", path, error)
        return None
