"""The machine, the cache folder and the variables of a report, without secrets and user names."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from typing import Any

from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.errors import shorten
from lavis_dynrefer.lab.benchmarks.resource_usage import (
    processor_cores,
    processor_flags,
    processor_name,
    total_memory,
)
from lavis_dynrefer.paths import cache_dir, expand_home

# What changes speed or number formats on a CPU, as Linux names it.
_FLAGS = {
    *("avx", "avx2", "avx_vnni", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"),
    *("asimd", "bf16", "i8mm", "sve"),
}
_VARIABLES = re.compile(
    r"(LAVIS_)?DYNREFER_|HF_|TRANSFORMERS_|HUGGINGFACE_|TORCH|PYTORCH_|CUDA_|NVIDIA_|NCCL_|GLOO_|SLURM_"
    r"|RAY_ADDRESS$|(OMP|MKL|OPENBLAS)_NUM_THREADS$|KMP_|(LOCAL_)?(RANK|WORLD_SIZE)$|MASTER_"
    r"|PYTHON(PATH|HOME|UTF8|IOENCODING|WARNINGS|NOUSERSITE)$|JAVA_HOME$|LC_ALL$|LANG$|TMPDIR$"
    r"|(http|https|no)_proxy$",
    re.IGNORECASE,
)
_PRIVATE = re.compile(
    r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|USER|ACCOUNT|EMAIL|_UID|_GID", re.I
)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")  # of an address: name and password
_SHOWN = 200  # characters of a value


def system() -> dict[str, Any]:
    """Python, operating system, processor, memory in bytes."""
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "executable": sys.executable,
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": processor_name(),
        "cores": processor_cores(),
        "usable_cores": available_cores(),
        "flags": sorted(processor_flags() & _FLAGS),
        "memory": total_memory(),
    }


def cache() -> dict[str, Any]:
    """The folder of downloads, and the bytes that are free there."""
    folder = cache_dir(create=False)
    there = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    return {"folder": str(folder), "exists": there == folder, "free": shutil.disk_usage(there).free}


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Those that matter here. Secrets and names of users are only said to be set.

    >>> variables({"HF_HOME": "/data", "HF_TOKEN": "hf_123", "EDITOR": "vi"})
    {'HF_HOME': '/data', 'HF_TOKEN': '(set)'}
    >>> variables({"https_proxy": "http://me:word@proxy:3128"})
    {'https_proxy': 'http://(login)@proxy:3128'}
    """
    return {
        name: "(set)" if _PRIVATE.search(name) else shorten(_LOGIN.sub("(login)", value), _SHOWN)
        for name, value in sorted(environment.items())
        if _VARIABLES.match(name)
    }


def without_home(value: Any) -> Any:
    """A report with "~" in place of the home folder in all texts."""
    home = str(expand_home("~"))
    if home in ("~", os.path.sep) or len(home) < 3:  # nobody's, or everything's
        return value
    return _replaced(value, re.compile(re.escape(home) + r"(?![\w.-])"))


def _replaced(value: Any, home: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return home.sub("~", value)
    if isinstance(value, Mapping):
        return {name: _replaced(item, home) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, home) for item in value]
    return value
