"""Elements of the report's sections as plain data.

An element of the kind KIND is rendered by templates/parts/KIND.html.jinja. Its class has the attribute `kind`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: content of the cell.
        order: number by which the column is sorted; None to sort by the text.
        link: id of an element of the page, to which the text becomes a link; empty for no link.
        tone: CSS class, for example `good`, `bad` or `code`; empty for none.
        share: depth of the background colour, from 0 (none) to 1; None for a cell without a background colour.
        id: id of the cell's row, for links to it; empty for none. Only the first cell of a row may have one.
    """

    text: str
    order: float | None = None
    link: str = ""
    tone: str = ""
    share: float | None = None
    id: str = ""


@dataclass(frozen=True)
class Head:
    """A heading above one or more columns of a table.

    Attributes:
        text: content of the heading.
        columns: number of columns that it spans.
        rows: number of rows of headings that it spans.
        number: True if its columns contain numbers: the heading is then aligned to the right, as the numbers are.
    """

    text: str
    columns: int = 1
    rows: int = 1
    number: bool = True


@dataclass(frozen=True)
class Table:
    """A table, as an element of a section. The first cell of each row is rendered as the heading of the row.

    Attributes:
        kind: name of the HTML template, always `table`.
        caption: text above the table.
        heads: rows of column headings, from top to bottom; usually one.
        rows: rows of cells, from top to bottom.
        texts: number of columns from the left that contain text. The other columns contain numbers.
        sortable: True if a click on a column heading sorts the rows.
        notes: lines of text below the table.
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
    """Paragraphs, or a highlighted list, as an element of a section.

    Attributes:
        kind: name of the HTML template, always `text`.
        lines: the paragraphs, or the items of the list.
        tone: CSS class of a list, for example `warning`; empty for paragraphs.
    """

    kind = "text"
    lines: list[str]
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of terms with their values, as an element of a section.

    Attributes:
        kind: name of the HTML template, always `facts`.
        pairs: pairs (term, value). Parts of a value between backticks are shown as code.
    """

    kind = "facts"
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Elements of a section under a common heading.

    Attributes:
        title: the heading; empty for none. The heading of the only titled group of a section is not shown, unless the
            group has an id.
        parts: the elements, from top to bottom: objects with an attribute `kind`, such as Table, Text, Facts or a
            Figure.
        id: id of the heading, for links to it; empty for none.
    """

    title: str
    parts: list[Any]
    id: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        id: id of the section in the page, for links to it.
        title: the heading, which is also the entry in the table of contents.
        lead: the introduction: what the results mean and how to read them. Parts between backticks are shown as code.
        groups: the contents, from top to bottom.
    """

    id: str
    title: str
    lead: str
    groups: list[Group]


def anchor(*names: str) -> str:
    """Returns the id of an element of the page, made of several names.

    Args:
        names: any texts, for example `wide`, `small` and `rslad`.

    Returns:
        The names joined by `/`, such as `wide/small/rslad`, with special characters percent-encoded. A link to the
        element is `#` followed by the id.
    """
    return quote("/".join(names))
