"""Conversations in which the demo model calls a tool, or reads what a tool gave back.

The form of a call in text belongs to the chat template (`tokenizer`).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

from tools.demo_model import facts as f
from tools.demo_model.generate import Example


@dataclass(frozen=True)
class _Tool:
    """A tool with one way to use it.

    parameters  name and JSON type of each.
    """

    name: str
    description: str
    parameters: tuple[tuple[str, str], ...]

    def schema(self) -> dict[str, Any]:
        """As in OpenAI's `tools`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": {
                    "type": "object",
                    "properties": {name: {"type": kind} for name, kind in self.parameters},
                    "required": [name for name, _ in self.parameters],
                },
            },
        }


@dataclass(frozen=True)
class _Use:
    """A question, the call that answers it, what the tool gives back, and the answer in words."""

    tool: _Tool
    question: str
    arguments: dict[str, Any]
    result: Any
    answer: str


def _weather(r: random.Random) -> _Use:
    place = r.choice(["city", "location", "city", "location", "place"])
    tool = _Tool(
        r.choice(["get_weather", "get_current_weather", "weather"]),
        r.choice(["Get the weather", "Get the current weather", "The weather of a city"]),
        ((place, "string"),),
    )
    city, degrees = r.choice(f.CITIES), r.randint(0, 35)
    sky = r.choice(["sunny", "cloudy", "rainy", "windy"])
    question = r.choice([
        f"What is the weather in {city}?", f"What's the weather like in {city}?",
        f"How is the weather in {city}?", f"Weather in {city}?",
        f"What is the weather like in {city} today?", f"Tell me the weather in {city}.",
    ])  # fmt: skip
    result = {"temperature": degrees, "sky": sky}
    return _Use(
        tool, question, {place: city}, result, f"It is {sky} and {degrees} degrees in {city}."
    )


def _time(r: random.Random) -> _Use:
    place = r.choice(["city", "timezone", "location"])
    tool = _Tool(r.choice(["get_time", "get_current_time"]), "Get the time", ((place, "string"),))
    city, clock = (
        r.choice(f.CITIES),
        f"{r.randint(10, 23)}:{r.choice([10, 15, 20, 30, 40, 45, 50])}",
    )
    question = r.choice([f"What time is it in {city}?", f"What is the time in {city}?",
                         f"Tell me the time in {city}."])  # fmt: skip
    return _Use(tool, question, {place: city}, {"time": clock}, f"It is {clock} in {city}.")


def _add(r: random.Random) -> _Use:
    name, joint, act = r.choice([("add", "plus", "Add"), ("subtract", "minus", "Subtract")])
    tool = _Tool(name, f"{act} two numbers", (("a", "integer"), ("b", "integer")))
    b = r.randint(10, 49)
    a = r.randint(b, 50)
    total = a + b if name == "add" else a - b
    question = r.choice([f"What is {a} {joint} {b}?", f"Calculate {a} {joint} {b}.",
                         f"Use the tool: {a} {joint} {b}"])  # fmt: skip
    return _Use(tool, question, {"a": a, "b": b}, {"result": total}, f"The result is {total}.")


def _search(r: random.Random) -> _Use:
    field = r.choice(["query", "query", "text"])
    tool = _Tool(r.choice(["search", "web_search"]), "Search the web", ((field, "string"),))
    item = f"{r.choice(f.ITEMS)} {r.choice(['pictures', 'news', 'shops', 'books'])}"
    question = r.choice([f"Search for {item}.", f"Look up {item}.", f"Find {item} on the web."])
    return _Use(tool, question, {field: item}, {"hits": 3}, f"I found 3 pages about {item}.")


def _timer(r: random.Random) -> _Use:
    tool = _Tool("set_timer", "Set a timer", (("minutes", "integer"),))
    minutes = r.randint(1, 60)
    question = r.choice([f"Set a timer for {minutes} minutes.", f"Wake me in {minutes} minutes.",
                         f"Start a timer of {minutes} minutes."])  # fmt: skip
    answer = f"The timer is set to {minutes} minutes."
    return _Use(tool, question, {"minutes": minutes}, {"ok": True}, answer)


def _message(r: random.Random) -> _Use:
    field, body = r.choice([("to", "text"), ("to", "message"), ("recipient", "message")])
    tool = _Tool(r.choice(["send_message", "send_email"]), "Send a message",
                 ((field, "string"), (body, "string")))  # fmt: skip
    name, text = r.choice(f.NAMES), r.choice(["hello", "I am late", "good morning", "see you soon"])
    question = r.choice([f'Send "{text}" to {name}.', f'Write to {name}: "{text}"',
                         f'Tell {name} "{text}".'])  # fmt: skip
    answer = f"I sent your message to {name}."
    return _Use(tool, question, {field: name, body: text}, {"ok": True}, answer)


def _light(r: random.Random) -> _Use:
    tool = _Tool("set_light", "Switch a light", (("room", "string"), ("state", "string")))
    room = r.choice(["kitchen", "garden", "house", "bath", "hall", "office"])
    state = r.choice(["on", "off"])
    question = r.choice([f"Turn {state} the light in the {room}.", f"Switch the {room} light {state}.",
                         f"Light {state} in the {room}, please."])  # fmt: skip
    answer = f"The light in the {room} is {state}."
    return _Use(tool, question, {"room": room, "state": state}, {"ok": True}, answer)


def _named(r: random.Random) -> _Use:
    """A tool of any name, called by its name: what teaches to read the tool list."""
    verb, noun = r.choice(["get", "make", "find", "open", "buy", "read"]), r.choice(f.ITEMS)
    field, value = r.choice(["name", "size", "id", "colour", "item", "key"]), r.choice(f.ITEMS)
    tool = _Tool(f"{verb}_{noun}", f"{verb} {noun}", ((field, "string"),))
    question = r.choice([f"Call {tool.name} with {field} {value}.", f"Use {tool.name} for {value}.",
                         f"{verb} the {noun} of {value}."])  # fmt: skip
    return _Use(tool, question, {field: value}, {"ok": True}, f"I called {tool.name} for {value}.")


_USES = [
    _weather,
    _weather,
    _weather,
    _time,
    _add,
    _search,
    _timer,
    _message,
    _light,
    _named,
    _named,
]


def tool_example(r: random.Random) -> Example:
    """One use among one or two tools: the call itself, or the answer to its result."""
    from tools.demo_model.generate import capital, opposite
    from tools.demo_model.skills import small_talk

    use = r.choice(_USES)(r)
    tools = [use.tool]
    if r.random() < 0.3:
        other = r.choice(_USES)(r).tool
        if other.name != use.tool.name:
            tools.append(other)
            r.shuffle(tools)
    schemas = tuple(tool.schema() for tool in tools)
    if r.random() < 0.15:  # tools are there, and not needed
        turn = r.choice([capital, opposite, small_talk])(r)
        plain = [{"role": "user", "content": turn.question},
                 {"role": "assistant", "content": turn.answer}]  # fmt: skip
        return Example("tools unused", plain, (turn.key or turn.question,), schemas)
    messages: list[dict[str, Any]] = [{"role": "user", "content": use.question}]
    call = {"type": "function", "function": {"name": use.tool.name, "arguments": use.arguments}}
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    key = f"{use.tool.name} {use.tool.parameters} {json.dumps(use.arguments)}"
    if r.random() < 0.35:
        messages.append({"role": "tool", "content": json.dumps(use.result)})
        messages.append({"role": "assistant", "content": use.answer})
        return Example("tool results", messages, (f"{key} {use.result}",), schemas)
    return Example("tool calls", messages, (key,), schemas)
