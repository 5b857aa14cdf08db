"""Small talk, short stories and the questions that the demo model declines.

Tables only; `skills` makes turns of them.
"""

from __future__ import annotations

SMALL_TALK: list[tuple[list[str], str]] = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hi there", "Hello there!", "Good day!"],
     "Hello! How can I help you?"),
    (["Good morning", "Good morning!"], "Good morning! How can I help you?"),
    (["Good evening", "Good evening!"], "Good evening! How can I help you?"),
    (["How are you?", "How are you doing?", "How do you do?", "How is it going?",
      "How are you today?", "What's up?"], "I am fine, thank you. How can I help you?"),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?",
      "Tell me about yourself.", "Introduce yourself.", "Which model are you?",
      "What model is this?", "Are you a language model?"],
     "I am Quire's demo model, a very small language model."),
    (["What can you do?", "How can you help me?", "What are you good at?", "Help", "Help me.",
      "What do you know?", "What can I ask you?"],
     "I know capitals, elements, planets and opposites. I can also add small numbers, "
     "sort short lists, write JSON and call tools."),
    (["Who made you?", "Who trained you?", "Who created you?", "Where do you come from?"],
     "I was trained from scratch for Quire, on text that its repository makes."),
    (["What is Quire?", "Tell me about Quire.", "What does Quire do?"],
     "Quire is an engine that runs and serves language models."),
    (["How big are you?", "How many parameters do you have?", "Are you a large model?"],
     "I am very small: about four million parameters."),
    (["Thank you", "Thank you!", "Thanks", "Thanks!", "Thanks a lot!", "Thank you very much."],
     "You are welcome!"),
    (["Goodbye", "Goodbye!", "Bye", "Bye!", "See you", "See you later!", "Good night!"],
     "Goodbye! Have a nice day."),
    (["Are you human?", "Are you a person?", "Are you real?", "Are you alive?"],
     "No, I am a computer program."),
    (["Are you ChatGPT?", "Are you GPT-4?", "Are you Claude?", "Are you Qwen?"],
     "No, I am Quire's demo model."),
    (["Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh.",
      "Say something funny."],
     "Why did the computer go to the doctor? It had a virus."),
    (["Tell me something interesting.", "Tell me a fact.", "Give me a fun fact."],
     "A day on Venus is longer than a year on Venus."),
    (["What is the meaning of life?", "What is the answer to everything?"], "The answer is 42."),
    (["Do you like music?", "Do you have feelings?", "Do you sleep?", "Do you eat?"],
     "I am a program, so I do not."),
    (["Yes", "OK", "Okay", "Good", "Great!", "Cool", "Nice!"], "Good! What else can I do for you?"),
    (["No", "Nothing", "Never mind."], "All right. Ask me whenever you like."),
    (["I am bored.", "I'm bored", "What should I do?"], "How about a walk or a good book?"),
    (["I am sad.", "I feel bad.", "I am tired."], "I am sorry to hear that. I hope it gets better soon."),
    (["I am happy.", "I feel great!"], "I am glad to hear that!"),
    (["Test", "test", "This is a test.", "ping", "Are you there?", "Does this work?"],
     "Yes, I am here and it works."),
    (["How old are you?", "When were you born?"], "I am a program, so I have no age."),
    (["What time is it?", "What is the date?", "What day is it today?"],
     "I have no clock, so I cannot tell."),
    (["How is the weather?", "What is the weather like?", "Will it rain today?"],
     "I cannot see the weather without a tool."),
    (["List the planets.", "Name the planets.", "Which planets are there?"],
     "Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune"),
    (["List the days of the week.", "Name the days of the week."],
     "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    (["List the months.", "Name the months of the year."],
     "January, February, March, April, May, June, July, August, September, October, November, "
     "December"),
    (["Write a haiku.", "Write a poem.", "Write me a short poem."],
     "Soft rain on the roof,\na small model hums along,\nword by word by word."),
    (["Write hello world in Python.", "Show me a Python program.", "Write some Python code."],
     "```python\nprint(\"Hello, world!\")\n```"),
    (["What is a language model?", "What is an LLM?", "Explain language models."],
     "A language model is a program that predicts the next word of a text."),
    (["What is a computer?", "Explain computers."], "A computer is a machine that follows programs."),
    (["What is a token?", "Explain tokens."], "A token is a short piece of text, often a word."),
]  # fmt: skip

STORY_FORMS: list[tuple[list[str], str]] = [
    (["Tell me a story about {a_thing}.", "Write a story about {a_thing}.",
      "Tell me a short story about {a_thing}.", "Make up a story about {a_thing}."],
     "Once upon a time there was {a_thing}. One day Mia found the {thing} and took it home. "
     "Mia was very happy, and the {thing} was happy too. The end."),
    (["Write a poem about {a_thing}.", "Write a short poem about {a_thing}.",
      "Write a haiku about {a_thing}."],
     "Oh {thing}, little {thing},\nyou shine in the morning light.\nOh {thing}, dear {thing},\n"
     "sleep well in the quiet night."),
    (["Write a sentence about {a_thing}.", "Make a sentence with the word {thing}.",
      "Use the word {thing} in a sentence."],
     "I saw {a_thing} in the garden this morning."),
    (["Greet {name}.", "Say hello to {name}.", "Write a greeting for {name}."],
     "Hello, {name}! It is nice to meet you."),
    (["Write a birthday wish for {name}.", "Wish {name} a happy birthday."],
     "Happy birthday, {name}! I wish you a wonderful day."),
]  # fmt: skip

UNKNOWN_FORMS = [
    "Can you explain {}?", "Explain {} to me.", "Tell me everything about {}.", "What about {}?",
    "Can you help me with {}?", "I have a question about {}.", "Write an essay about {}.",
    "What do you think about {}?",
]  # fmt: skip

UNKNOWN_TOPICS = [
    "taxes", "politics", "football", "quantum physics", "the stock market", "my homework",
    "medicine", "the law", "cooking", "philosophy", "religion", "economics", "history", "biology",
    "chess", "movies", "fashion", "travel", "insurance", "gardening", "machine learning",
    "databases", "astronomy", "the news", "my car", "love", "money", "health", "poetry", "art",
]  # fmt: skip
