"""Seed-OSS: tags of its own family."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "seed_oss": ThinkFormat(
        starts=("<seed:think>",), ends=("</seed:think>",), inside=True, may_skip=True
    ),
}
