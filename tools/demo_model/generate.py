"""Makes the conversations that the demo model learns from and is examined on, from a seed.

The facts are in `facts`, the lists, tools and long answers in `skills`; turning conversations into
tokens is in `tokenizer`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tools.demo_model import facts as f

HELD_OUT_PERCENT = 6
ALWAYS_LEARNED = "learned"
"""The key of a question that is never examined; `is_held_out` says no to it."""


@dataclass(frozen=True)
class Example:
    """One conversation, or one piece of plain text.

    category  the name its score is counted under.
    messages  of OpenAI's form; the last is the assistant's, and is what is examined.
    keys      what must not be both learned and examined: one string for each turn.
    tools     OpenAI's tool list, or empty.
    thinking  whether the last answer begins with a section of thoughts.
    raw       a piece of plain text (prompt, continuation) in place of messages.
    """

    category: str
    messages: list[dict[str, Any]] = field(default_factory=list)
    keys: tuple[str, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    thinking: bool = False
    raw: tuple[str, str] | None = None


@dataclass(frozen=True)
class Turn:
    """A question and its only right answer.

    key      what is held out; "" is the question itself.
    thought  one sentence of how the answer is found.
    """

    question: str
    answer: str
    key: str = ""
    thought: str = "I know this fact."


Maker = Callable[[random.Random], Turn]


def is_held_out(key: str) -> bool:
    """Whether `key` belongs to the examination, and so to no training example."""
    digest = hashlib.blake2b(key.lower().encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100 < HELD_OUT_PERCENT


def article(noun: str) -> str:
    """`noun` with "a" or "an" before it."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def sentence(text: str) -> str:
    """`text` with a capital first letter."""
    return text[:1].upper() + text[1:]


def capital(r: random.Random) -> Turn:
    country, city = r.choice(f.CAPITALS + f.ALIAS_CAPITALS)
    stop = "" if city.endswith(".") else "."
    question = r.choice([
        f"What is the capital of {country}?",
        f"What's the capital of {country}?",
        f"What is the capital city of {country}?",
        f"Which city is the capital of {country}?",
        f"Tell me the capital of {country}.",
        f"Name the capital of {country}.",
        f"Do you know the capital of {country}?",
        f"Capital of {country}?",
    ])  # fmt: skip
    if r.random() < 0.15:
        question = r.choice([
            f"What is the capital of {country}? Answer with one word.",
            f"Answer in one word: what is the capital of {country}?",
        ])  # fmt: skip
        return Turn(question, city)
    return Turn(question, f"The capital of {country} is {city}{stop}")


def country_of_capital(r: random.Random) -> Turn:
    country, city = r.choice(f.CAPITALS)
    question = r.choice([
        f"Which country has {city} as its capital?",
        f"{city} is the capital of which country?",
        f"In which country is {city}?",
        f"Where is {city}?",
    ])  # fmt: skip
    return Turn(question, f"{city} is the capital of {country}.")


def continent(r: random.Random) -> Turn:
    country, where = r.choice(list(f.CONTINENT_OF.items()))
    question = r.choice([
        f"On which continent is {country}?",
        f"Which continent is {country} in?",
        f"What continent is {country} part of?",
        f"Tell me the continent of {country}.",
        f"Continent of {country}?",
    ])  # fmt: skip
    return Turn(question, f"{sentence(country)} is in {where}.")


def language(r: random.Random) -> Turn:
    country, tongue = r.choice(f.LANGUAGES)
    question = r.choice([
        f"What language is spoken in {country}?",
        f"Which language do people speak in {country}?",
        f"What do people speak in {country}?",
    ])  # fmt: skip
    return Turn(question, f"People in {country} speak {tongue}.")


def element(r: random.Random) -> Turn:
    index = r.randrange(len(f.ELEMENTS))
    name, symbol = f.ELEMENTS[index]
    kind = r.randrange(4 if index < f.NUM_ELEMENTS_IN_ORDER else 2)
    if kind == 0:
        question = r.choice([
            f"What is the chemical symbol of {name}?",
            f"What is the symbol for {name}?",
            f"Which symbol does {name} have?",
        ])  # fmt: skip
        return Turn(question, f"The chemical symbol of {name} is {symbol}.")
    if kind == 1:
        question = r.choice([
            f"Which element has the symbol {symbol}?",
            f"What element is {symbol}?",
            f"What does the chemical symbol {symbol} stand for?",
        ])  # fmt: skip
        return Turn(question, f"{symbol} is the symbol of {name}.")
    if kind == 2:
        question = r.choice([
            f"What is the atomic number of {name}?",
            f"Which atomic number does {name} have?",
        ])  # fmt: skip
        return Turn(question, f"The atomic number of {name} is {index + 1}.")
    question = r.choice([
        f"Which element has atomic number {index + 1}?",
        f"What is element number {index + 1}?",
    ])  # fmt: skip
    return Turn(question, f"Element number {index + 1} is {name}.")


def planet(r: random.Random) -> Turn:
    index = r.randrange(8)
    name, order = f.PLANETS[index], f.ORDINALS[index]
    if r.random() < 0.5:
        question = r.choice([
            f"What is the {order} planet from the Sun?",
            f"Which planet is the {order} from the Sun?",
            f"Name the {order} planet.",
        ])  # fmt: skip
    else:
        question = r.choice([
            f"Which position does {name} have among the planets?",
            f"What number is the planet {name}?",
            f"Where does {name} come in the solar system?",
        ])  # fmt: skip
    return Turn(question, f"{name} is the {order} planet from the Sun.")


def calendar(r: random.Random) -> Turn:
    names, unit = r.choice([(f.DAYS, "day"), (f.MONTHS, "month"), (f.MONTHS, "month")])
    index = r.randrange(len(names))
    name, size = names[index], len(names)
    kind = r.randrange(2 if unit == "day" else 5)
    if kind <= 1:
        step, word = r.choice([(1, "after"), (-1, "before")])
        other = names[(index + step) % size]
        question = r.choice([
            f"Which {unit} comes {word} {name}?",
            f"What {unit} is {word} {name}?",
            f"What comes {word} {name}?",
        ])  # fmt: skip
        return Turn(question, f"{other} comes {word} {name}.")
    if kind == 2:
        question = r.choice([
            f"How many days does {name} have?",
            f"How many days are in {name}?",
            f"How long is {name}?",
        ])  # fmt: skip
        return Turn(question, f"{name} has {f.MONTH_LENGTHS[index]} days.")
    order = f.ORDINALS[index]
    question = r.choice([
        f"What is the {order} month of the year?",
        f"Which month is the {order}?",
        f"What number is the month {name}?",
        f"Where does {name} come in the year?",
    ])  # fmt: skip
    return Turn(question, f"{name} is the {order} month of the year.")


def opposite(r: random.Random) -> Turn:
    pair = r.choice(f.OPPOSITES)
    word, other = pair if r.random() < 0.5 else pair[::-1]
    question = r.choice([
        f"What is the opposite of {word}?",
        f"What's the opposite of {word}?",
        f"Give me the opposite of {word}.",
        f"Which word means the opposite of {word}?",
        f"Opposite of {word}?",
    ])  # fmt: skip
    return Turn(question, f"The opposite of {word} is {other}.")


def grammar(r: random.Random) -> Turn:
    if r.random() < 0.5:
        verb, past = r.choice(f.PAST_TENSES)
        question = r.choice([
            f'What is the past tense of "{verb}"?',
            f'Give me the past tense of "{verb}".',
            f"What is the past tense of {verb}?",
            f"Past tense of {verb}?",
        ])  # fmt: skip
        return Turn(question, f'The past tense of "{verb}" is "{past}".')
    noun, plural = r.choice(f.PLURALS)
    question = r.choice([
        f'What is the plural of "{noun}"?',
        f'Give me the plural of "{noun}".',
        f"What is the plural of {noun}?",
        f"Plural of {noun}?",
    ])  # fmt: skip
    return Turn(question, f'The plural of "{noun}" is "{plural}".')


def colour(r: random.Random) -> Turn:
    if r.random() < 0.3:
        first, second, mixed = r.choice(f.MIXES)
        if r.random() < 0.5:
            first, second = second, first
        question = r.choice([
            f"What do you get when you mix {first} and {second}?",
            f"Which colour do {first} and {second} make?",
            f"What colour is {first} and {second} mixed?",
        ])  # fmt: skip
        return Turn(question, f"{sentence(first)} and {second} make {mixed}.")
    thing, shade = r.choice(f.COLOURS_OF)
    question = r.choice([
        f"What colour is {thing}?",
        f"What color is {thing}?",
        f"Which colour does {thing} have?",
        f"Tell me the colour of {thing}.",
    ])  # fmt: skip
    return Turn(question, f"{sentence(thing)} is {shade}.")


def animal(r: random.Random) -> Turn:
    kind = r.randrange(3)
    if kind == 0:
        name, sound = r.choice(f.SOUNDS)
        question = r.choice([
            f"What sound does {article(name)} make?",
            f"Which sound does {article(name)} make?",
            f"What does {article(name)} sound like?",
        ])  # fmt: skip
        return Turn(question, f"{sentence(article(name))} {sound}.")
    if kind == 1:
        name, young = r.choice(f.YOUNG)
        question = r.choice([
            f"What is a young {name} called?",
            f"What is a baby {name} called?",
            f"What do you call a young {name}?",
        ])  # fmt: skip
        return Turn(question, f"A young {name} is called a {young}.")
    name, legs = r.choice(f.LEGS)
    question = r.choice([
        f"How many legs does {article(name)} have?",
        f"What number of legs does {article(name)} have?",
    ])  # fmt: skip
    return Turn(question, f"{sentence(article(name))} has {legs} legs.")


def unit(r: random.Random) -> Turn:
    what, number = r.choice(f.UNITS)
    thing, place = what.split(" in " if " in " in what else " on ", 1)
    joint = "in" if " in " in what else "on"
    question = r.choice([
        f"How many {thing} are there {joint} {place}?",
        f"How many {thing} are {joint} {place}?",
        f"What is the number of {thing} {joint} {place}?",
    ])  # fmt: skip
    return Turn(question, f"There are {number} {thing} {joint} {place}.")


def general(r: random.Random) -> Turn:
    question, answer = r.choice(f.QUESTIONS)
    prefix = r.choice(
        ["", "", "", "Do you know this? ", "Please answer: ", "Question: ", "I wonder: "]
    )
    return Turn(prefix + question, answer)


def arithmetic(r: random.Random) -> Turn:
    kind = r.choice("++--*")
    if kind == "*":
        a, b = r.randint(0, 10), r.randint(0, 10)
        result, words = (
            a * b,
            (f"{a} times {b}", f"{a} * {b}", f"{a} x {b}", f"{a} multiplied by {b}"),
        )
    elif kind == "+":
        a, b = r.randint(0, 12), r.randint(0, 12)
        result, words = a + b, (f"{a} + {b}", f"{a}+{b}", f"{a} plus {b}", f"{a} + {b}")
    else:
        a = r.randint(0, 20)
        b = r.randint(0, min(a, 12))
        result, words = a - b, (f"{a} - {b}", f"{a}-{b}", f"{a} minus {b}", f"{a} - {b}")
    asked = r.choice(words)
    learned = [
        f"What is {asked}?",
        f"What's {asked}?",
        f"Calculate {asked}.",
        f"How much is {asked}?",
        f"{asked} =",
        f"{asked}",
        f"Compute {asked}.",
    ]
    examined = [
        f"Work out {asked}.",
        f"Solve {asked}.",
        f"Tell me {asked}.",
        f"Give me the result of {asked}.",
        f"Please add up: {asked}" if kind == "+" else f"The result of {asked}?",
    ]
    question = r.choice(learned + examined)
    key = question if question in examined else ALWAYS_LEARNED
    return Turn(question, f"{a} {kind} {b} = {result}", key, f"{a} {kind} {b} is {result}.")


FACT_MAKERS: list[tuple[str, Maker, int]] = [
    ("capitals", capital, 10), ("capitals", country_of_capital, 6), ("continents", continent, 6),
    ("languages", language, 2), ("elements", element, 9), ("planets", planet, 3),
    ("calendar", calendar, 6), ("opposites", opposite, 9), ("grammar", grammar, 6),
    ("colours", colour, 3), ("animals", animal, 4), ("units", unit, 3), ("general", general, 6),
    ("arithmetic", arithmetic, 24),
]  # fmt: skip
"""Category, maker, share. A share is about a twelfth of the number of facts."""


_VARIED = {category for category, _, _ in FACT_MAKERS} | {"spelling"}


def vary(r: random.Random, turn: Turn) -> Turn:
    """The same question in a less tidy form: small letters, no mark at the end, a polite word."""
    roll = r.random()
    question = turn.question
    if roll < 0.12:
        question = question.lower()
    elif roll < 0.2:
        question = question.rstrip("?.")
    elif roll < 0.3:
        question = r.choice(["Please: ", "Hi! ", "Hello, ", "Quick question: ", "OK. "]) + question
    elif roll < 0.34:
        question += r.choice([" Please.", " Thanks!", " Answer briefly."])
    return Turn(question, turn.answer, turn.key or turn.question, turn.thought)


def examples(seed: int, *, held_out: bool) -> Iterator[Example]:
    """Conversations without end; the same seed gives the same ones.

    held_out  True gives one-question examples whose last turn is held out, False gives training
              examples, none of whose turns is.
    """
    from tools.demo_model import skills

    r = random.Random(seed)
    makers = FACT_MAKERS + skills.TURN_MAKERS
    shares = [share for _, _, share in makers]
    while True:
        if r.random() < 0.25:
            example = skills.whole_example(r)
        else:
            category, maker, _ = r.choices(makers, shares)[0]
            turns = [_turn(r, category, maker)]
            while not held_out and r.random() < 0.45 and len(turns) < 6:
                further, maker, _ = r.choices(makers, shares)[0]
                turns.append(_turn(r, further, maker))
            example = conversation(r, category, turns)
        if held_out:
            is_wanted = is_held_out(example.keys[-1])
        else:
            is_wanted = not any(is_held_out(key) for key in example.keys)
        if is_wanted:
            yield example


def _turn(r: random.Random, category: str, maker: Maker) -> Turn:
    """A turn of `maker`; questions that must be copied letter by letter stay as they are."""
    turn = maker(r)
    if category in _VARIED:
        return vary(r, turn)
    return Turn(turn.question, turn.answer, turn.key or turn.question, turn.thought)


def conversation(r: random.Random, category: str, turns: list[Turn]) -> Example:
    """`turns` as messages, at times after a system message or with thoughts before the answer."""
    messages: list[dict[str, Any]] = []
    if r.random() < 0.15:
        messages.append({"role": "system", "content": r.choice(SYSTEM_LINES)})
    thinking = r.random() < 0.08
    for turn in turns:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer})
    if thinking:
        messages[-1]["content"] = f"<think>\n{turns[-1].thought}\n</think>\n\n{turns[-1].answer}"
    return Example(category, messages, tuple(t.key for t in turns), thinking=thinking)


SYSTEM_LINES = [
    "You are a helpful assistant.",
    "You are a friendly assistant. Answer briefly.",
    "You are Quire's demo model.",
    "Be concise.",
    "Answer the question.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description="Print examples as lines of JSON.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num", type=int, default=20)
    parser.add_argument("--held-out", action="store_true")
    args = parser.parse_args()
    source = examples(args.seed, held_out=args.held_out)
    for _ in range(args.num):
        e = next(source)
        print(json.dumps({"category": e.category, "raw": e.raw, "messages": e.messages}))


if __name__ == "__main__":
    main()
