"""What a section consists of, as plain data; templates/parts/KIND.html.jinja shows each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote

from markupsafe import Markup


@dataclass(frozen=True)
class Cell:
    text: str
    order: float | None = None  # what it is sorted by, where not by its text
    link: str = ""  # the id of what it leads to
    tone: str = ""  # a CSS class
    share: float | None = None  # in [0, 1]: how deep its background is
    id: str = ""


@dataclass(frozen=True)
class Head:
    text: str
    columns: int = 1
    rows: int = 1
    number: bool = True  # right-aligned, as its cells


@dataclass(frozen=True)
class Table:
    """The first cell of a row names it."""

    kind: ClassVar[str] = "table"
    caption: str
    heads: list[list[Head]]
    rows: list[list[Cell]]
    texts: int = 1  # columns from the left that hold text, not numbers
    sortable: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a mark and its name."""

    name: str
    colour: str
    path: str


@dataclass(frozen=True)
class Panel:
    """A drawing; `alt` says in words what it shows."""

    svg: Markup
    alt: str
    title: str = ""


@dataclass(frozen=True)
class Figure:
    kind: ClassVar[str] = "figure"
    caption: str
    panels: list[Panel]
    legend: list[Key] = field(default_factory=list)


@dataclass(frozen=True)
class Text:
    """Paragraphs, or a list of points; `tone` marks a warning."""

    kind: ClassVar[str] = "text"
    lines: list[str]
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """Terms and what they are."""

    kind: ClassVar[str] = "facts"
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Parts under a heading of their own; without a title they stand right below the section's."""

    title: str
    parts: list[Any]
    id: str = ""


@dataclass(frozen=True)
class Section:
    id: str
    title: str
    lead: str  # what it says and how to read it
    groups: list[Group]


def anchor(*names: str) -> str:
    """An id that no character of a name can break; `#` before it leads there."""
    return quote("/".join(names))


def of_pair(teacher: str, student: str) -> str:
    """The heading of one comparison."""
    return f"Student {student}, teacher {teacher}"
