"""Small functions that programs take from vLLM's inside: a logger, the platform, the end of an engine."""

from __future__ import annotations

import gc
import logging
import uuid
from typing import Any

import quire
from quire.config.demo import FOLDER
from quire.config.schema import ModelConfig, Settings
from quire.frontend.outside_tokenizer import open_tokenizer
from quire.frontend.tokenizer import Tokenizer
from quire.hardware.cuda import read_gpus
from quire.models.loading.hub import with_local_folders

INTERFACE = (0, 31, 0)
"""The version of vLLM whose interface is meant."""

__version__ = f"{'.'.join(map(str, INTERFACE))}+quire.{quire.__version__}"
__version_tuple__ = (*INTERFACE, f"quire.{quire.__version__}")


def init_logger(name: str) -> logging.Logger:
    """The logger of this name."""
    return logging.getLogger(name)


def random_uuid() -> str:
    """32 hexadecimal digits."""
    return uuid.uuid4().hex


def cleanup_dist_env_and_memory(shutdown_ray: bool = False) -> None:
    """Collects what the program has let go of: an engine without references ends."""
    gc.collect()


def destroy_model_parallel() -> None:
    """Nothing: one engine runs on one device."""


def destroy_distributed_environment() -> None:
    """Nothing: one engine runs on one device."""


def get_tokenizer(
    tokenizer_name: str,
    *_: Any,
    tokenizer_mode: str = "auto",
    revision: str | None = None,
    **__: Any,
) -> Tokenizer:
    """The tokenizer of a folder or of a name on the hub. Raises ModelLoadError."""
    named = ModelConfig(
        model=str(FOLDER),
        tokenizer=tokenizer_name,
        tokenizer_mode=tokenizer_mode,
        tokenizer_revision=revision,
    )
    folder = with_local_folders(Settings(model=named)).model.tokenizer or tokenizer_name
    return open_tokenizer(folder, tokenizer_mode)


class _Platform:
    """What a program may ask of the machine."""

    def __init__(self) -> None:
        self.device_type = "cuda" if read_gpus() else "cpu"
        self.device_name = self.device_type

    def is_cpu(self) -> bool:
        """Whether there is no GPU."""
        return self.device_type == "cpu"

    def is_cuda(self) -> bool:
        """Whether there is an NVIDIA GPU."""
        return self.device_type == "cuda"

    def is_cuda_alike(self) -> bool:
        """The same: no other maker's GPUs are used."""
        return self.is_cuda()

    def is_rocm(self) -> bool:
        """No."""
        return False

    def is_tpu(self) -> bool:
        """No."""
        return False

    def is_xpu(self) -> bool:
        """No."""
        return False

    def seed_everything(self, seed: int | None = None) -> None:
        """Nothing: random numbers depend on a request's seed alone."""


current_platform = _Platform()
