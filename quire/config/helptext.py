"""What `--help` shows: the groups, one group, one flag, everything, or a search.

The flags themselves are `config.cli`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def show_help(parser: argparse.ArgumentParser, argv: Sequence[str]) -> None:
    """Prints help and exits with 0 if the words ask for it; else does nothing.

    `--help` lists the groups, `--help=all` everything; `--help=NAME` a group, a flag or a search.
    """
    for word in argv:
        if word == "--":
            return
        if word in ("-h", "--help"):
            print(overview(parser), end="")
            parser.exit(0)
        if word.startswith("--help="):
            print(find(parser, word.partition("=")[2]), end="")
            parser.exit(0)


def overview(parser: argparse.ArgumentParser) -> str:
    """The groups with the number of their flags."""
    lines = [f"usage: {parser.prog} [MODEL] [flags]", "", "groups of flags:"]
    for title, actions in _groups(parser):
        lines.append(f"  {title:28} {len(actions)} flags")
    lines += [
        "",
        f"{parser.prog} --help=all           every flag",
        f"{parser.prog} --help=ModelConfig   one group",
        f"{parser.prog} --help=max-model-len one flag, or every flag whose text has the word",
        "",
    ]
    return "\n".join(lines)


def find(parser: argparse.ArgumentParser, wanted: str) -> str:
    """The help of what `wanted` names: all, a group, a flag, or every flag that mentions it."""
    key = wanted.strip().lstrip("-").replace("_", "-").lower()
    groups = _groups(parser)
    if key == "all":
        return "".join(_render(title, actions) for title, actions in groups)
    for title, actions in groups:
        if title.lower().replace(" ", "-") == key:
            return _render(title, actions)
    exact = [
        (title, [a for a in actions if "--" + key in a.option_strings]) for title, actions in groups
    ]
    hits = [(title, actions) for title, actions in exact if actions]
    if not hits:
        hits = [(title, [a for a in actions if _mentions(a, key)]) for title, actions in groups]
        hits = [(title, actions) for title, actions in hits if actions]
    if not hits:
        return f"nothing in the help of {parser.prog} mentions {wanted!r}\n"
    return "".join(_render(title, actions) for title, actions in hits)


def _groups(parser: argparse.ArgumentParser) -> list[tuple[str, list[argparse.Action]]]:
    found = []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.option_strings]
        if actions:
            found.append((group.title or "options", actions))
    return found


def _mentions(action: argparse.Action, word: str) -> bool:
    names = " ".join(action.option_strings)
    return word in names or word.replace("-", " ") in (action.help or "").lower()


def _render(title: str, actions: list[argparse.Action]) -> str:
    lines = [f"{title}:"]
    for action in actions:
        value = "" if action.nargs == 0 else f" {action.metavar or 'VALUE'}"
        text = (action.help or "").replace("%%", "%")
        lines.append(f"  {', '.join(action.option_strings)}{value}\n      {text}")
    return "\n".join(lines) + "\n\n"
