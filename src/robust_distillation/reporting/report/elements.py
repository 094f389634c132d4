"""Elements of the report's sections as plain data; templates/parts/KIND.html.jinja renders each kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: its content.
        order: number to sort by; None to sort by the text.
        link: id of the element that it links to; empty for none.
        tone: a CSS class; empty for none.
        share: depth of its background in [0, 1]; None for none.
        id: its own id; empty for none.
    """

    text: str
    order: float | None = None
    link: str = ""
    tone: str = ""
    share: float | None = None
    id: str = ""


@dataclass(frozen=True)
class Head:
    """A heading of a table's columns.

    Attributes:
        text: its content.
        columns: number of columns that it spans.
        rows: number of rows that it spans.
        number: its columns hold numbers, so that it is right-aligned as they are.
    """

    text: str
    columns: int = 1
    rows: int = 1
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its heading.

    Attributes:
        caption: text above the table.
        heads: rows of headings.
        rows: rows of cells.
        texts: number of columns from the left that hold text, not numbers.
        sortable: a click on a heading sorts the rows.
        notes: lines below the table.
    """

    kind = "table"
    caption: str
    heads: list[list[Head]]
    rows: list[list[Cell]]
    texts: int = 1
    sortable: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Text:
    """Paragraphs, or with a tone a list of points.

    Attributes:
        lines: the paragraphs.
        tone: `warning`; empty for plain text.
    """

    kind = "text"
    lines: list[str]
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of terms and their values."""

    kind = "facts"
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Elements under a heading of their own.

    Attributes:
        title: the heading; empty for elements right below the section's.
        parts: the elements.
        id: for links to it; empty for none.
    """

    title: str
    parts: list[Any]
    id: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        id: for links to it.
        title: the heading.
        lead: introduction: the meaning of the results, and how to read them.
        groups: the contents.
    """

    id: str
    title: str
    lead: str
    groups: list[Group]


def anchor(*names: str) -> str:
    """Returns an id made of names, whatever characters they have. A link to it is `#` and the id."""
    return quote("/".join(names))
