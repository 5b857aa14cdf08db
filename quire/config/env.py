"""The environment: the one file that reads it, and the list of every variable that acts.

What a variable means for a setting is declared in `config.schema`; how text becomes a value is `config.values`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from quire.protocol.errors import SettingsError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})


@dataclass(frozen=True)
class Variable:
    """One variable that acts. `alias` is the name that vLLM knows it by; our own name wins."""

    name: str
    help: str
    alias: str | None = None


VARIABLES: tuple[Variable, ...] = (
    Variable("QUIRE_LOG_LEVEL", "debug, info, warning or error", "VLLM_LOGGING_LEVEL"),
    Variable("QUIRE_CACHE_DIR", "folder for what may be rebuilt", "VLLM_CACHE_ROOT"),
    Variable("QUIRE_API_KEY", "bearer key of the server", "VLLM_API_KEY"),
    Variable(
        "QUIRE_ENGINE_PROCESS",
        "1 runs the engine of LLM in a process of its own",
        "VLLM_ENABLE_V1_MULTIPROCESSING",
    ),
    Variable("QUIRE_PLUGINS", "names of the plug-ins that may load, with commas", "VLLM_PLUGINS"),
    Variable("QUIRE_CPU_ISA", "native kernels to use: avx512, avx2, portable, or none"),
    Variable("QUIRE_CPU_KERNELS", "folder of the native libraries, instead of the installed ones"),
    Variable("OPENAI_API_KEY", "bearer key that quire chat, complete and bench serve send"),
    Variable("VLLM_LOG_STATS_INTERVAL", "seconds between two lines of what the engine does"),
    Variable("VLLM_SERVER_DEV_MODE", "1 adds routes for development"),
    Variable("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "1 keeps the server up without its engine"),
    Variable("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "seconds an idle connection is kept"),
    Variable("VLLM_CPU_INT4_W4A8", "1 or 0: --activation-bits 8 or 16 where that is not given"),
    Variable("VLLM_MAX_N_SEQUENCES", "largest n of a request"),
    Variable("VLLM_MAX_COMPLETION_PROMPTS", "most prompts in one completions request"),
)

_BY_NAME = {variable.name: variable for variable in VARIABLES}
_ACTING = frozenset(_BY_NAME) | {v.alias for v in VARIABLES if v.alias is not None}

KNOWN_PREFIXES_WITHOUT_EFFECT: tuple[str, ...] = (
    "VLLM_ALL2ALL_", "VLLM_ALLREDUCE_", "VLLM_ALLOW_", "VLLM_ASSETS_", "VLLM_ATTENTION_",
    "VLLM_AUDIO_", "VLLM_BATCH_INVARIANT", "VLLM_COMPILE_", "VLLM_COMPUTE_", "VLLM_CONFIG_ROOT",
    "VLLM_CONFIGURE_LOGGING", "VLLM_CPU_", "VLLM_CUSTOM_", "VLLM_DBO_", "VLLM_DEBUG_",
    "VLLM_DEEPEP_", "VLLM_DISABLE", "VLLM_DO_NOT_TRACK", "VLLM_DP_", "VLLM_EC_", "VLLM_ELASTIC_",
    "VLLM_ENABLE_", "VLLM_ENFORCE_", "VLLM_ENGINE_", "VLLM_EXECUTE_", "VLLM_FASTSAFETENSORS_",
    "VLLM_FAULT_", "VLLM_FLASHINFER_", "VLLM_FLOAT32_", "VLLM_GC_", "VLLM_GPT_OSS_",
    "VLLM_HOST_IP", "VLLM_HUMMING_", "VLLM_IMAGE_", "VLLM_KV_", "VLLM_LOGGING_", "VLLM_LOG_",
    "VLLM_LOOPBACK_IP", "VLLM_LORA_", "VLLM_MAIN_CUDA_", "VLLM_MARLIN_", "VLLM_MAX_AUDIO_",
    "VLLM_MAX_IMAGE_", "VLLM_MEDIA_", "VLLM_MLA_", "VLLM_MM_", "VLLM_MODEL_", "VLLM_MOE_",
    "VLLM_MOONCAKE_", "VLLM_MQ_", "VLLM_MSGPACK_", "VLLM_NCCL_", "VLLM_NIXL_",
    "VLLM_NO_USAGE_STATS", "VLLM_NVTX_", "VLLM_OBJECT_", "VLLM_P2P_", "VLLM_PATTERN_",
    "VLLM_PORT", "VLLM_PP_", "VLLM_PREFIX_", "VLLM_RAISE_", "VLLM_RANDOMIZE_",
    "VLLM_RAY_", "VLLM_REGEX_", "VLLM_RINGBUFFER_", "VLLM_ROCM_", "VLLM_RPC_", "VLLM_RUST_",
    "VLLM_SKIP_", "VLLM_SLEEP_", "VLLM_SSM_", "VLLM_SYSTEM_",
    "VLLM_TARGET_DEVICE", "VLLM_TOOL_", "VLLM_TORCH_", "VLLM_TPU_", "VLLM_TRACE_", "VLLM_TUNED_",
    "VLLM_USAGE_", "VLLM_USE_", "VLLM_V1_", "VLLM_VIDEO_", "VLLM_WEIGHT_", "VLLM_WORKER_",
    "VLLM_XGRAMMAR_", "VLLM_XLA_", "VLLM_XPU_", "VLLM_ZENTORCH_",
)  # fmt: skip
"""Families of vLLM's variables that act on nothing here; a set one is named once at start."""


def read(name: str) -> str | None:
    """The text of a variable of `VARIABLES`, or of its alias; None when neither is set.

    Raises KeyError for a name that is not in the list.
    """
    variable = _BY_NAME[name]
    text = os.environ.get(variable.name)
    if text is None and variable.alias is not None:
        text = os.environ.get(variable.alias)
    return text


def read_bool(name: str, default: bool) -> bool:
    """A variable as a truth value. Raises SettingsError for a word that is neither."""
    text = read(name)
    if text is None:
        return default
    word = text.strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise SettingsError(f"environment variable {name} is {text!r}; write 1 or 0")


def log_level() -> str:
    """The level of the process's own log, lower case; info when unset."""
    level = (read("QUIRE_LOG_LEVEL") or "info").strip().lower()
    if level not in ("critical", "error", "warning", "info", "debug"):
        raise SettingsError(
            f"environment variable QUIRE_LOG_LEVEL is {level!r}; "
            "write critical, error, warning, info or debug"
        )
    return level


def cache_dir() -> Path:
    """The folder for files that may be rebuilt; it need not exist."""
    text = read("QUIRE_CACHE_DIR")
    if text:
        return Path(text).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "quire"


def engine_in_own_process(default: bool = False) -> bool:
    """Whether `LLM` starts its engine in a child process."""
    return read_bool("QUIRE_ENGINE_PROCESS", default)


def plugins() -> frozenset[str] | None:
    """Names of the plug-ins that may load; None where all may, empty where none may."""
    text = read("QUIRE_PLUGINS")
    if text is None:
        return None
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def cpu_isa() -> str | None:
    """The instruction set whose native kernels are wanted, lower case; None for the best."""
    text = read("QUIRE_CPU_ISA")
    return text.strip().lower() if text else None


def cpu_kernels() -> Path | None:
    """The folder that native libraries are loaded from; None for the installed ones."""
    text = read("QUIRE_CPU_KERNELS")
    return Path(text).expanduser() if text else None


def is_set(name: str) -> bool:
    """Whether the environment has any variable of this name, of ours or of a library."""
    return name in os.environ


def set_default(name: str, value: str) -> None:
    """Gives a variable a value for this process and its children, unless the user gave it one.

    For variables of libraries that read them once, when they are loaded; not for Quire's own.
    """
    os.environ.setdefault(name, value)


def add_python_path(folder: str) -> None:
    """Lets the processes that this one starts import from `folder`, before anything else."""
    rest = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, rest]) if rest else folder


_REPORTED = (
    "QUIRE_", "VLLM_", "HF_", "HUGGING_FACE_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH_", "PYTORCH_",
    "CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "OPENAI_",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONPATH", "PYTHONHASHSEED", "MALLOC_", "TRITON_",
)  # fmt: skip
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "COOKIE")
_NOT_SECRET = ("TOKENIZERS_",)
_USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


def reported() -> dict[str, str]:
    """Variables that bear on a run, sorted by name, for a report that others may read.

    The values of names that sound like a secret, and names and passwords inside URLs, are `(hidden)`.
    """
    found = {}
    for name in sorted(name for name in os.environ if name.startswith(_REPORTED)):
        is_secret = any(word in name.upper() for word in _SECRET_WORDS)
        is_hidden = is_secret and not name.startswith(_NOT_SECRET)
        found[name] = "(hidden)" if is_hidden else _USER_IN_URL.sub("(hidden)@", os.environ[name])
    return found


def for_child(**values: str) -> dict[str, str]:
    """The environment of a process to be started: this one's, with `values` in it."""
    return dict(os.environ) | values


def without_effect() -> list[str]:
    """Names of set variables that vLLM knows and nothing here reads, sorted."""
    return sorted(
        name
        for name in os.environ
        if name.startswith(KNOWN_PREFIXES_WITHOUT_EFFECT) and name not in _ACTING
    )


def unknown() -> list[str]:
    """Names of set variables that start with QUIRE_ or VLLM_ and that nobody knows, sorted."""
    return sorted(
        name
        for name in os.environ
        if name.startswith(("QUIRE_", "VLLM_"))
        and name not in _ACTING
        and not name.startswith(KNOWN_PREFIXES_WITHOUT_EFFECT)
    )
