"""The labelled texts that fine-tunes learn from, and how each task is trained.

All come from wheels on PyPI (see ``assets.py``): news agency stories in eight classes (Reuters R8), Usenet posts in
twenty groups, snippets on films and on products that people scored, questions by the kind of their answer, and text
messages that are spam or not.
"""

import csv
import hashlib
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import assets

Example = tuple[str, str]
"""A label and its text."""

HELD_OUT = 1000
"""Held-out texts that a score is taken over."""


@dataclass(frozen=True, slots=True)
class Task:
    """One classification task and how it is trained.

    Args:
        prompts: For each label, the sentence whose embedding stands for it.
        read: Returns (training, held-out) examples.
        rate: Peak learning rate of AdamW.
        decay: Weight decay of matrices and embeddings; biases and norms never decay.
        steps: Training steps at scale 1.
        tokens: Tokens of a text that are read.
    """

    prompts: Mapping[str, str]
    read: Callable[[assets.Corpora], tuple[list[Example], list[Example]]]
    rate: float
    decay: float
    steps: int
    tokens: int


def _tab_separated(path: Path) -> list[Example]:
    """Read a label and a text a line, below the three header lines of an Orange table."""
    with path.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))[3:]
    return [(row[0], row[1]) for row in rows if len(row) > 1 and row[0] and row[1].strip()]


def _split(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Hold out a fifth, chosen by each text's hash, so that no text is on both sides and order does not matter."""
    sides: tuple[list[Example], list[Example]] = ([], [])
    for text, label in {text: label for label, text in examples}.items():
        held_out = hashlib.sha256(text.encode()).digest()[0] < 256 // 5
        sides[held_out].append((label, text))
    return sides


def _read_reuters8(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    return _tab_separated(files.reuters8_train), _tab_separated(files.reuters8_test)


def _read_news20(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    return _tab_separated(files.news20_train), _tab_separated(files.news20_test)


def _scored(path: Path) -> tuple[list[Example], list[Example]]:
    """Read snippets that people scored from -4 to 4, without the nearly neutral ones."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    scored = [(float(row[1]), row[2]) for row in rows if len(row) == 3]
    return _split(("good" if score > 0 else "bad", text) for score, text in scored if abs(score) >= 0.4)


def _read_movies(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    return _scored(files.movies)


def _read_products(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    return _scored(files.products)


def _read_messages(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    with files.messages.open(encoding="utf-8", newline="") as stream:
        return _split(("spam" if row["spam"] == "1" else "ham", row["text"]) for row in csv.DictReader(stream))


def _read_questions(files: assets.Corpora) -> tuple[list[Example], list[Example]]:
    """Read lines like ``HUM:ind Who … ?`` and keep the coarse class."""
    lines = files.questions.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (re.match(r"([A-Z]+):\w+ (.+)", line) for line in lines)
    return _split((match[1], match[2]) for match in found if match)


TASKS: dict[str, Task] = {
    "reuters8": Task(
        prompts={
            "acq": "one company buys another or merges with it",
            "crude": "crude oil, gas and energy prices",
            "earn": "a company reports its quarterly profit, loss or dividend",
            "grain": "the wheat and corn harvest",
            "interest": "a central bank and its interest rates",
            "money-fx": "currencies and the foreign exchange market",
            "ship": "shipping, vessels and ports",
            "trade": "trade between countries, tariffs and exports",
        },
        read=_read_reuters8,
        rate=5e-5,
        decay=0.0,
        steps=80,
        tokens=48,
    ),
    "news20": Task(
        prompts={
            "alt.atheism": "atheism",
            "comp.graphics": "computer graphics and image formats",
            "comp.os.ms-windows.misc": "the microsoft windows operating system",
            "comp.sys.ibm.pc.hardware": "hardware of ibm compatible computers",
            "comp.sys.mac.hardware": "hardware of apple macintosh computers",
            "comp.windows.x": "the x window system on unix",
            "misc.forsale": "things for sale",
            "rec.autos": "cars and driving",
            "rec.motorcycles": "motorcycles and riding",
            "rec.sport.baseball": "baseball",
            "rec.sport.hockey": "ice hockey",
            "sci.crypt": "encryption and privacy",
            "sci.electronics": "electronic circuits",
            "sci.med": "medicine, illness and treatment",
            "sci.space": "space flight and astronomy",
            "soc.religion.christian": "christian faith and the church",
            "talk.politics.guns": "gun laws",
            "talk.politics.mideast": "politics of the middle east",
            "talk.politics.misc": "politics and government",
            "talk.religion.misc": "religion and belief",
        },
        read=_read_news20,
        rate=1e-4,
        decay=0.01,
        steps=120,
        tokens=48,
    ),
    "movies": Task(
        prompts={"bad": "a dull and disappointing film", "good": "a delightful and moving film"},
        read=_read_movies,
        rate=5e-5,
        decay=0.01,
        steps=160,
        tokens=40,
    ),
    "questions": Task(
        prompts={
            "ABBR": "what do these letters stand for",
            "DESC": "what does it mean, how does it work and why",
            "ENTY": "which thing, animal, food, product or event",
            "HUM": "who is it, which person or group",
            "LOC": "where is it, which city or country",
            "NUM": "how many, how much, when",
        },
        read=_read_questions,
        rate=1e-4,
        decay=0.0,
        steps=160,
        tokens=20,
    ),
    "products": Task(
        prompts={
            "bad": "a faulty product and an unhappy customer",
            "good": "an excellent product and a happy customer",
        },
        read=_read_products,
        rate=5e-5,
        decay=0.01,
        steps=160,
        tokens=40,
    ),
    "messages": Task(
        prompts={"ham": "a message to a friend", "spam": "an advertisement that promises a prize"},
        read=_read_messages,
        rate=5e-5,
        decay=0.0,
        steps=80,
        tokens=40,
    ),
}


@dataclass(frozen=True, slots=True)
class Data:
    """A task's texts with labels as class numbers, shuffled once and for all."""

    train: list[tuple[int, str]]
    held_out: list[tuple[int, str]]
    prompts: list[str]


def read_task(name: str) -> Data:
    """Read the texts of one of :data:`TASKS`, downloading them on first use."""
    task = TASKS[name]
    number = {label: i for i, label in enumerate(sorted(task.prompts))}
    train, held_out = ([(number[label], text) for label, text in part] for part in task.read(assets.corpora()))
    random.Random(1).shuffle(train)
    random.Random(2).shuffle(held_out)
    return Data(train, held_out[:HELD_OUT], [task.prompts[label] for label in number])
