"""Chat templates: found in a checkpoint, compiled in a sandbox, rendered within bounds.

What goes into them is `frontend.chat_messages`; what becomes of their text is `frontend.chat`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.meta

from quire.frontend.chat_sandbox import MAX_CHARS, Sandbox, bounded
from quire.protocol.errors import InvalidRequestError, ModelLoadError, SettingsError

_PROBE = "quire-probe"

Templates = dict[str, str]
"""Template texts by name; a single template is called "default"."""


class _Raised(jinja2.TemplateError):
    """The template refused the conversation with `raise_exception`."""


def _refuse(message: str) -> NoReturn:
    raise _Raised(str(message))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON with every character as it is: jinja2's own filter escapes < and > for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _now(form: str) -> str:
    return datetime.now().strftime(form)


def _dict(*pairs: Any, **named: Any) -> dict[Any, Any]:
    return dict(*pairs, **named)


def _environment() -> Sandbox:
    made = Sandbox()
    made.filters["tojson"] = _to_json
    made.globals |= {"raise_exception": _refuse, "strftime_now": _now, "dict": _dict}
    made.guard_filters()
    return made


class ChatTemplate:
    """One compiled template. Safe to use from several threads. Raises ModelLoadError if it is no template.

    text  the template as it was given.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self._compiled = _environment().from_string(text)
        except jinja2.TemplateSyntaxError as error:
            raise ModelLoadError(
                f"the chat template cannot be read: {error.message} in line {error.lineno}"
            ) from error
        except (jinja2.TemplateError, RecursionError, ValueError) as error:
            raise ModelLoadError(f"the chat template cannot be read: {error}") from error

    def render(self, context: Mapping[str, Any]) -> str:
        """What the template writes, within the bounds of the sandbox.

        Raises InvalidRequestError, with the template's own message if it refuses.
        """
        pieces: list[str] = []
        size = 0
        try:
            with bounded():
                for piece in self._compiled.generate(context):
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_CHARS:
                        break
        except _Raised as error:
            raise InvalidRequestError(
                f"the chat template refuses these messages: {error}", param="messages"
            ) from error
        except Exception as error:  # a template may fail in any way, and only this request with it
            raise InvalidRequestError(
                f"the chat template cannot write these messages: {type(error).__name__}: {error}",
                param="messages",
            ) from error
        if size > MAX_CHARS:
            raise InvalidRequestError(
                f"the chat template writes more than {MAX_CHARS} characters; send less",
                param="messages",
            )
        return "".join(pieces)

    @cached_property
    def _variables(self) -> set[str]:
        """The variables it reads and does not set."""
        return jinja2.meta.find_undeclared_variables(_environment().parse(self.text))

    def switched(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables, with `enable_thinking` as `reasoning_effort` means it.

        Only for a template that knows the first, and where it is not given.
        """
        effort = variables.get("reasoning_effort")
        name = "enable_thinking"
        if effort is None or name in variables or name not in self._variables:
            return variables
        return {**variables, name: effort != "none"}

    @cached_property
    def shows_developer(self) -> bool:
        """Whether it writes what a developer says; tried on one conversation."""
        messages = [{"role": "developer", "content": _PROBE}, {"role": "user", "content": "-"}]
        context = {"messages": messages, "add_generation_prompt": False, "tools": None}
        try:
            return _PROBE in self.render(context)
        except InvalidRequestError:
            return False

    @cached_property
    def reads_parts(self) -> bool:
        """Whether it can write content that is a list of parts; tried on one message."""
        message = {"role": "user", "content": [{"type": "text", "text": _PROBE}]}
        context = {"messages": [message], "add_generation_prompt": False, "tools": None}
        try:
            text = self.render(context)
        except InvalidRequestError:
            return False
        return _PROBE in text and "'text'" not in text and '"text"' not in text


def find_templates(folder: Path, settings: Mapping[str, Any]) -> Templates:
    """The templates of a checkpoint: chat_template.jinja, else `chat_template` of tokenizer_config.json.

    Raises ModelLoadError if they are there but cannot be read.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return {"default": _read(path)} | _further(folder)
    given = settings.get("chat_template")
    if given is None:
        return _further(folder)
    if isinstance(given, str):
        return {"default": given} | _further(folder)
    try:
        return {str(one["name"]): str(one["template"]) for one in given}
    except (TypeError, KeyError):
        raise ModelLoadError(
            f"{folder}/tokenizer_config.json: chat_template must be a text, or a list of objects with "
            "name and template"
        ) from None


def _further(folder: Path) -> Templates:
    return {
        path.stem: _read(path)
        for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error


def chosen_template(chosen: str, known: Templates) -> str:
    """The template that a setting means: a name among `known`, a file, or the text itself.

    Raises SettingsError for a name that is none of them.
    """
    if chosen in known:
        return known[chosen]
    if "{" in chosen or "\n" in chosen:
        return chosen
    path = Path(chosen)
    if not path.is_file():
        names = f"; the checkpoint's templates are {', '.join(sorted(known))}" if known else ""
        raise SettingsError(
            f"chat_template is {chosen[:200]!r}, which is neither a file nor a template{names}"
        )
    return _read(path)
