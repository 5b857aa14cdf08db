"""The model that is served when none is named: the small chat model that the package carries.

How it was made is in tools/demo_model.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from quire.config.schema import Settings

FOLDER = Path(__file__).parents[1] / "models" / "demo"
"""Its checkpoint, in the form of any other."""
NAME = "quire-demo"
"""The name it is served under."""


def with_model(settings: Settings) -> Settings:
    """The same settings, with the demo model where no model is named."""
    model = settings.model
    if model.model:
        return settings
    names = model.served_model_name or [NAME]
    return replace(settings, model=replace(model, model=str(FOLDER), served_model_name=names))
