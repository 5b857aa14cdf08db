"""The folder that holds what the comparison needs and makes: environments, checkpoints, requests, results.

Who fills it: `setup` the environments, `checkpoints` and `conversion` the models, `run` the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_ROOT = Path("~/.cache/quire-peers")


@dataclass(frozen=True)
class Store:
    """Places under one folder. Nothing is created until someone writes there."""

    root: Path

    @classmethod
    def at(cls, folder: str | Path) -> Store:
        """A store in `folder`, its `~` expanded."""
        return cls(Path(folder).expanduser().absolute())

    def environment(self, peer: str) -> Path:
        """The virtual environment of a peer."""
        return self.root / "environments" / peer

    def python(self, peer: str) -> Path:
        """The interpreter of a peer's environment."""
        return self.environment(peer) / "bin" / "python"

    def checkpoint(self, model: str) -> Path:
        """The folder of a checkpoint in Hugging Face format."""
        return self.root / "models" / model

    def gguf(self, model: str, number_format: str) -> Path:
        """The same weights as one GGUF file."""
        return self.root / "gguf" / f"{model}-{number_format}.gguf"

    def openvino(self, model: str, number_format: str) -> Path:
        """The folder of the same weights as an OpenVINO model."""
        return self.root / "openvino" / f"{model}-{number_format}"

    def requests(self, name: str) -> Path:
        """A file of requests."""
        return self.root / "requests" / f"{name}.json"

    def results(self) -> Path:
        """The folder of results."""
        return self.root / "results"

    def log(self, name: str) -> Path:
        """What an engine or an installation printed."""
        return self.root / "logs" / f"{name}.log"
