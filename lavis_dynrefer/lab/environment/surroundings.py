"""The machine, the cache folder and the variables of a report, without secrets and user names."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Mapping
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
    r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH|COOKIE|HEADER|USER|ACCOUNT|EMAIL|_UID|_GID", re.I
)
# What an address may hold besides the place: name and password, which may have a slash or an @;
# a query, which may have a token or a signature.
_LOGIN = re.compile(
    r"(?<=://)([^\s/:?#@]+:[^\s?#]*|[^\s/?#]*)(?=@)"
    r"|(?<![^\s=,;'\"])[^\s:/@]+:(?![/\\])[^\s@]*(?=@)"  # without http:// before it
)
_QUERY = re.compile(r"(://[^\s?#]*)[?#][^\s'\"]+")
# Bearer words and tokens of Hugging Face, GitHub, OpenAI, AWS, wherever they stand.
_SECRET = re.compile(r"(?<=Bearer )\S+|\b(hf_|gh[pousr]_|github_pat_|sk-|AKIA)\w{8,}")
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
        name: "(set)" if _PRIVATE.search(name) else shorten(without_secrets(value), _SHOWN)
        for name, value in sorted(environment.items())
        if _VARIABLES.match(name)
    }


def without_secrets(text: str) -> str:
    """A text without passwords, queries of addresses and tokens of well-known services.

    >>> without_secrets("https://me:p@ss/word@host/x?token=1 and me:word@proxy:80")
    'https://(login)@host/x?(query) and (login)@proxy:80'
    """
    text = _QUERY.sub(r"\1?(query)", _LOGIN.sub("(login)", text))
    return _SECRET.sub("(secret)", text)


def without_private(value: Any) -> Any:
    """A report without secrets, and with "~" in place of the home folder, in all texts."""
    home = str(expand_home("~"))
    if home in ("~", os.path.sep) or len(home) < 3:  # nobody's, or everything's
        return _replaced(value, without_secrets)
    folder = re.compile(re.escape(home) + r"(?![\w.-])")
    return _replaced(value, lambda text: folder.sub("~", without_secrets(text)))


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _replaced(item, change) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, change) for item in value]
    return value
