"""Elements of the report's sections as plain data.

An element of the kind KIND is rendered by templates/parts/KIND.html.jinja. Its class has the attribute `kind`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote


@dataclass(frozen=True)
class Cell:
    """One cell of a `Table` in the report.

    Attributes:
        text: content of the cell.
        order: number by which the column is sorted; None to sort by the text.
        link: id of an element of the page, to which the text becomes a link; empty for no link.
        tone: CSS class of the cell, such as `good`, `bad` or `code`; empty for none.
        share: depth of the background colour, from 0 (none) to 1; None for a cell without a background colour.
        id: id of the cell's row, to which other cells can link; empty for none. Only the first cell of a row may have
            one.
    """

    text: str
    order: float | None = None
    link: str = ""
    tone: str = ""
    share: float | None = None
    id: str = ""


@dataclass(frozen=True)
class Head:
    """A heading above one or more columns of a `Table` in the report.

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
    """A table, as an element of a section of the report. The first cell of each row is rendered as the heading of the
    row.

    Attributes:
        kind: class constant `table`, not an argument. The report renders the element by
            templates/parts/table.html.jinja.
        caption: text above the table.
        heads: rows of column headings, from top to bottom; usually one row. A `Head` has `text`, `columns` and `rows`
            (how many it spans) and `number` (True: aligned to the right).
        rows: rows of cells, from top to bottom. A `Cell` has `text`, `order` (number to sort by), `link`, `tone` (CSS
            class), `share` (depth of the background colour) and `id`.
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
    """Paragraphs, or a highlighted list, as an element of a section of the report.

    Attributes:
        kind: class constant `text`, not an argument. The report renders the element by templates/parts/text.html.jinja.
        lines: the paragraphs, or the items of the list.
        tone: CSS class of a list, such as `warning`; empty for paragraphs.
    """

    kind = "text"
    lines: list[str]
    tone: str = ""


@dataclass(frozen=True)
class Facts:
    """A list of terms with their values, as an element of a section of the report.

    Attributes:
        kind: class constant `facts`, not an argument. The report renders the element by
            templates/parts/facts.html.jinja.
        pairs: pairs (term, value), such as ("Dataset", "digits, 300 test images, 10 classes"). Parts of a value between
            backticks are shown as code.
    """

    kind = "facts"
    pairs: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Elements of a section of the report under a common heading.

    Attributes:
        title: the heading, such as `Student small, teacher wide`; empty for none. If only one group of a section has a
            title, that title is not shown, unless the group has an id.
        parts: the elements, from top to bottom: objects with an attribute `kind`, such as a `Table`, `Text` or `Facts`
            of this module or a `figures.figure.Figure`. The report renders an object by
            templates/parts/KIND.html.jinja, where KIND is its `kind`.
        id: id of the heading, for links to it; empty for none.
    """

    title: str
    parts: list[Any]
    id: str = ""


@dataclass(frozen=True)
class Section:
    """A section of the report, as plain data. The function `reporting.report.page.page` renders it as HTML. All texts
    are plain: HTML is escaped there.

    Attributes:
        id: id of the section in the page, for links to it, such as `results`.
        title: the heading, which is also the entry in the table of contents.
        lead: the introduction: what the results mean and how to read them. Parts between backticks are shown as code.
        groups: the contents, from top to bottom. A `Group` has `title` (heading), `parts` (tables, figures and other
            elements) and `id`.
    """

    id: str
    title: str
    lead: str
    groups: list[Group]


def anchor(*names: str) -> str:
    """Joins names to the id of an element of the page, so that other elements can link to it.

    Args:
        names: any texts, for example `wide`, `small` and `rslad`.

    Returns:
        The names joined by `/`, such as `wide/small/rslad`, with special characters percent-encoded. A link to the
        element is `#` followed by the id.
    """
    return quote("/".join(names))
