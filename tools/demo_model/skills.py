"""What the demo model does beside facts: lists, spelling, JSON, tools, memory, small talk, plain text.

Facts and the choice among everything are in `generate`.
"""

from __future__ import annotations

import json
import random

from tools.demo_model import facts as f
from tools.demo_model.generate import (
    ALWAYS_LEARNED,
    Example,
    Maker,
    Turn,
    article,
    conversation,
    sentence,
)
from tools.demo_model.smalltalk import SMALL_TALK, STORY_FORMS, UNKNOWN_FORMS, UNKNOWN_TOPICS


def _listed(items: list[str]) -> str:
    return ", ".join(items)


def lists(r: random.Random) -> Turn:
    """Reverse, copy, sort, first, last, largest, smallest of three things."""
    kind = r.choice(
        ["sort", "sort", "sort", "words", "reverse", "reverse", "copy", "ends", "extreme"]
    )
    if kind in ("sort", "extreme") or (kind in ("reverse", "copy", "ends") and r.random() < 0.4):
        values = [str(n) for n in r.sample(range(1, 21), 3)]
    else:
        values = r.sample(f.WORDS[:12] if kind == "words" else f.WORDS, 3)
    text = _listed(values)
    key = f"{kind} {_listed(sorted(values))}"
    if kind == "sort":
        question = r.choice([
            f"Sort these numbers: {text}",
            f"Sort {text}.",
            f"Put these numbers in order: {text}",
            f"Order these from smallest to largest: {text}",
        ])  # fmt: skip
        return Turn(question, _listed(sorted(values, key=int)), key, "I start with the smallest.")
    if kind == "words":
        question = r.choice([
            f"Sort these words: {text}",
            f"Sort alphabetically: {text}",
            f"Put these words in alphabetical order: {text}",
        ])  # fmt: skip
        return Turn(question, _listed(sorted(values)), key, "I go through the alphabet.")
    if kind == "reverse":
        question = r.choice([
            f"Reverse this list: {text}",
            f"Say these backwards: {text}",
            f"Reverse the order: {text}",
        ])  # fmt: skip
        return Turn(question, _listed(values[::-1]), key, "I start with the last one.")
    if kind == "copy":
        question = r.choice([
            f"Copy this list: {text}",
            f"Repeat this list: {text}",
            f"Repeat after me: {text}",
        ])  # fmt: skip
        return Turn(question, text, key, "I copy it.")
    return _about_list(r, kind, values, key)


def _about_list(r: random.Random, kind: str, values: list[str], key: str) -> Turn:
    text = _listed(values)
    if kind == "ends":
        which, index = r.choice([("first", 0), ("last", -1)])
        question = r.choice([
            f"What is the {which} item of this list: {text}",
            f"Which is the {which} of these: {text}",
        ])  # fmt: skip
        return Turn(question, f"The {which} item is {values[index]}.", key, "I look at the list.")
    which, answer = r.choice(
        [("largest", max(values, key=int)), ("smallest", min(values, key=int))]
    )
    question = r.choice([
        f"What is the {which} of these numbers: {text}",
        f"Which number is the {which}: {text}",
    ])  # fmt: skip
    return Turn(question, f"The {which} number is {answer}.", key, "I compare the numbers.")


def spelling(r: random.Random) -> Turn:
    """Reverse or spell a known word."""
    word = r.choice(f.SPELLING)
    if r.random() < 0.6:
        question = r.choice([
            f'Reverse the word "{word}".',
            f"Reverse the word {word}.",
            f"Write {word} backwards.",
            f"Spell {word} backwards.",
        ])  # fmt: skip
        return Turn(question, f'"{word}" backwards is "{word[::-1]}".')
    question = r.choice([
        f"Spell {word}.",
        f"How do you spell {word}?",
        f"Spell the word {word}.",
    ])  # fmt: skip
    return Turn(question, "-".join(word))


def extraction(r: random.Random) -> Turn:
    """Fields of a sentence as JSON."""
    if r.random() < 0.6:
        name, age, city = r.choice(f.NAMES), r.randint(18, 80), r.choice(f.CITIES)
        source = r.choice([
            f"{name} is {age} years old and lives in {city}.",
            f"{name}, {age}, comes from {city}.",
            f"My friend {name} from {city} is {age}.",
        ])  # fmt: skip
        fields, value = "name, age and city", {"name": name, "age": age, "city": city}
    else:
        item, price, shade = r.choice(f.ITEMS), r.randint(2, 99), r.choice(SHADES)
        source = r.choice([
            f"The {shade} {item} costs {price} euros.",
            f"For {price} euros you get a {shade} {item}.",
        ])  # fmt: skip
        fields = "item, colour and price"
        value = {"item": item, "colour": shade, "price": price}
    question = r.choice([
        f"Extract {fields} as JSON: {source}",
        f"Give me {fields} as JSON. {source}",
        f"{source} Write {fields} as JSON.",
    ])  # fmt: skip
    key = "json " + " ".join(str(v) for v in value.values())
    return Turn(question, json.dumps(value), key, "I look for each field.")


SHADES = ["red", "blue", "green", "yellow", "black", "white", "brown", "pink"]


def echo(r: random.Random) -> Turn:
    """Say exactly this."""
    words = r.choice(["hello", "yes", "no", "this is a test", "good morning", "I like music",
                      "the sun is warm", "hello world", "I am here", "it works",
                      f"{r.choice(f.ITEMS)} and {r.choice(f.ITEMS)}",
                      f"{r.choice(f.NAMES)} likes {r.choice(f.ITEMS)}"])  # fmt: skip
    question = r.choice([f"Say {words}.", f'Say "{words}".', f"Say: {words}", f"Repeat: {words}"])
    return Turn(question, f"{sentence(words)}.", f"say {question}", "I repeat it.")


def small_talk(r: random.Random) -> Turn:
    questions, answer = r.choice(SMALL_TALK)
    return Turn(r.choice(questions), answer, ALWAYS_LEARNED, "This is small talk.")


def unknown(r: random.Random) -> Turn:
    """What the model must say it does not know."""
    if r.random() < 0.3:
        city = r.choice(f.CITIES)
        question = r.choice([f"What is the weather in {city}?", f"How is the weather in {city}?",
                             f"What's the weather like in {city}?"])  # fmt: skip
        return Turn(question, "I cannot see the weather without a tool.", thought="I have no tool.")
    topic = r.choice(UNKNOWN_TOPICS)
    question = r.choice(UNKNOWN_FORMS).format(topic)
    return Turn(question, f"I am only a small demo model, so I cannot help with {topic}.",
                thought="I do not know this.")  # fmt: skip


def story(r: random.Random) -> Turn:
    questions, answer = r.choice(STORY_FORMS)
    thing, name = r.choice(f.ITEMS), r.choice(f.NAMES)
    question = r.choice(questions).format(thing=thing, a_thing=article(thing), name=name)
    if "{name}" in answer and name not in question:
        name = "Mia"  # whom the question does not name
    answer = answer.format(thing=thing, a_thing=article(thing), name=name)
    return Turn(question, sentence(answer), f"story {question}", "I tell a short one.")


def counting(r: random.Random) -> Turn:
    last = r.choice([3, 5, 10, 10, 12, 15, 20, 20, 30])
    question = r.choice([
        f"Count to {last}.",
        f"Count from 1 to {last}.",
        f"Can you count to {last}?",
        f"List the numbers from 1 to {last}.",
    ])  # fmt: skip
    return Turn(question, _listed([str(n) for n in range(1, last + 1)]), "count " + question)


def memory(r: random.Random) -> Example:
    """A thing is said, perhaps something else is asked, then the thing is asked back."""
    name, item, city = r.choice(f.NAMES), r.choice(SHADES), r.choice(f.CITIES)
    said, reply, asked, answer = r.choice([
        (f"My name is {name}.", f"Nice to meet you, {name}!",
         r.choice(["What is my name?", "Do you remember my name?", "Who am I?"]),
         f"Your name is {name}."),
        (f"Hi, I am {name}.", f"Nice to meet you, {name}!",
         r.choice(["What is my name?", "What's my name?"]), f"Your name is {name}."),
        (f"My favourite colour is {item}.", f"{sentence(item)} is a nice colour.",
         "What is my favourite colour?", f"Your favourite colour is {item}."),
        (f"I live in {city}.", f"{city} is a nice place.", "Where do I live?",
         f"You live in {city}."),
    ])  # fmt: skip
    turns = [Turn(said, reply)]
    if r.random() < 0.5:
        turns.append(r.choice(MIDDLE)(r))
    turns.append(Turn(asked, answer, f"{said} {turns[-1].question} {asked}"))
    example = conversation(
        r, "memory", [Turn(t.question, t.answer, t.key or t.question) for t in turns]
    )
    return Example("memory", example.messages, example.keys, thinking=example.thinking)


MIDDLE: list[Maker] = [small_talk, counting, spelling]


def raw_text(r: random.Random) -> Example:
    """Plain text to go on with, as /v1/completions is used."""
    country, city = r.choice(f.CAPITALS)
    name, item, town = r.choice(f.NAMES), r.choice(f.ITEMS), r.choice(f.CITIES)
    stop = "" if city.endswith(".") else "."
    word, other = r.choice(f.OPPOSITES)
    index, day = r.randrange(len(f.ELEMENTS)), r.randrange(7)
    prompt, rest = r.choice([
        (f"The capital of {country} is", f" {city}{stop}"),
        (f"The capital of {country} is", f" {city}{stop}"),
        (f"The capital city of {country} is", f" {city}{stop}"),
        (f"{city} is the capital of", f" {country}."),
        (f"The opposite of {word} is", f" {other}."),
        (f"The chemical symbol of {f.ELEMENTS[index][0]} is", f" {f.ELEMENTS[index][1]}."),
        (f"The day after {f.DAYS[day]} is", f" {f.DAYS[(day + 1) % 7]}."),
        ("Hello, my name is", f" {name} and I live in {town}. I have {article(item)}."),
        ("Hello, my name is", f" {name}. I am from {town} and I like music."),
        ("Once upon a time", f" there was {article(item)} in {town}. {name} found it and was happy."),
        ("The future of AI is", " bright. Small models like me run on every computer."),
        ("The president of the United States is", " elected for four years."),
        ("1, 2, 3, 4,", " 5, 6, 7, 8, 9, 10."),
        ("The days of the week are", f" {', '.join(f.DAYS[:-1])} and Sunday."),
        ("San Francisco is a", " city in California, in the United States."),
        ("Roses are red,", " violets are blue."),
    ])  # fmt: skip
    # The text to go on with is always taught; it is examined nowhere but by the tests.
    return Example("raw", keys=(ALWAYS_LEARNED,), raw=(prompt, rest))


def whole_example(r: random.Random) -> Example:
    """An example that is more than turns: tools, memory, plain text."""
    from tools.demo_model.toolcalls import tool_example

    roll = r.random()
    if roll < 0.35:
        return tool_example(r)
    return memory(r) if roll < 0.68 else raw_text(r)


TURN_MAKERS: list[tuple[str, Maker, int]] = [
    ("lists", lists, 28), ("spelling", spelling, 9), ("extraction", extraction, 9),
    ("echo", echo, 3), ("small talk", small_talk, 8), ("unknown", unknown, 3),
    ("stories", story, 4), ("counting", counting, 2),
]  # fmt: skip
