"""gpt-oss: harmony, whose messages to functions are calls."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.harmony import Harmony

FORMATS: dict[str, ToolFormat] = {"openai": Harmony()}
