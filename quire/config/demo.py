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
TOOLS = "hermes"
"""The form in which its chat template writes calls of tools."""
REASONING = "qwen3"
"""The form of its reasoning."""


def with_model(settings: Settings) -> Settings:
    """The same settings, with the demo model, and its ways to think and to call tools, where no model is named."""
    model = settings.model
    if model.model:
        return settings
    names = model.served_model_name or [NAME]
    parsers = settings.parsers
    if parsers.tool_call_parser is None:
        parsers = replace(parsers, tool_call_parser=TOOLS, enable_auto_tool_choice=True)
    if not parsers.reasoning_parser:
        parsers = replace(parsers, reasoning_parser=REASONING)
    return replace(
        settings,
        model=replace(model, model=str(FOLDER), served_model_name=names),
        parsers=parsers,
    )
