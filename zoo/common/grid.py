"""Draw tables and the lines above and below them: in a terminal, as plain text or as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.common.choices import Format
from zoo.common.rendering import FULL_WIDTH, csv_text, escaped, json_text, plain_text, table_row

__all__ = ["FORMATS", "Document", "Grid", "GridRow", "Heading", "Line", "draw", "to_markdown", "to_text"]

FORMATS: tuple[str, ...] = get_args(Format)

MARGIN = 3
"""The width of the padding around a column and of the separator after the column, in characters."""
WRAPPED_WIDTH = 24
"""The width of a column with wrapped cells, in characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """The heading of a column, and how the column may change if a terminal is too narrow for the table.

    Attributes:
        text: the text of the heading.
        is_number: whether the cells are aligned to the right.
        can_wrap: whether long cells fold into several lines, so that a narrow terminal can show the whole table.
        can_move: whether a line below the table may replace the column if all rows have the same value.
        is_of_section: whether all rows of a section have the same value. In a narrow terminal, a line above the rows of each
            section then replaces the column.
        drop_order: a number. Columns with lower numbers are left out first. With None, the column is never left out.
        is_secondary: whether the column is left out before cells are folded. Other columns are left out only if the table is
            still too wide with folded cells.
    """

    text: str
    is_number: bool = False
    can_wrap: bool = False
    can_move: bool = False
    is_of_section: bool = False
    drop_order: int | None = None
    is_secondary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GridRow:
    """One row of a table.

    Attributes:
        cells: the text of each cell, one for each heading.
        style: the Rich style of the row in a terminal.
        styles: the Rich style of each cell; empty if the cells do not differ in style.
        is_extra: whether the row is not data but, for example, a warning. Such a row affects neither the width of a column nor
            whether all values of a column are the same.
    """

    cells: tuple[str, ...]
    style: str = ""
    styles: tuple[str, ...] = ()
    is_extra: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table.

    Attributes:
        headings: one for each column.
        sections: groups of rows that belong together. In a terminal, an empty line separates the sections.
        is_split: whether columns that do not fit into the terminal go into further tables, which repeat the first column.
        more: how to see the columns that were left out. A line below the table names these columns; this text is appended to
            it.
    """

    headings: tuple[Heading, ...]
    sections: tuple[tuple[GridRow, ...], ...]
    is_split: bool = False
    more: str = ""

    @property
    def rows(self) -> Iterator[GridRow]:
        """The rows of all sections, without extra rows."""
        return (row for section in self.sections for row in section if not row.is_extra)

    def widths(self) -> list[int]:
        """Return how many characters each column needs. For cells that can wrap, at most `WRAPPED_WIDTH` are counted."""
        columns = zip(*(row.cells for row in self.rows), strict=True)
        longest = [max(len(line) for cell in cells for line in cell.split("\n")) for cells in columns] or [0] * len(
            self.headings
        )
        return [
            max(len(heading.text), min(width, WRAPPED_WIDTH) if heading.can_wrap else width)
            for heading, width in zip(self.headings, longest, strict=True)
        ]

    def width(self) -> int:
        """Return the width of the whole table without folded cells, in characters."""
        return 2 + sum(MARGIN + width for width in self.widths())

    def select(self, columns: Sequence[int]) -> Grid:
        """Return a copy of the table with only these columns."""
        return replace(
            self,
            headings=tuple(self.headings[column] for column in columns),
            sections=tuple(
                tuple(replace(row, cells=_select(row.cells, columns), styles=_select(row.styles, columns)) for row in section)
                for section in self.sections
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text above or below a table.

    Attributes:
        text: the text of the line.
        kind: whether the line is a title, a paragraph, an item of a list, or code.
        style: the Rich style of the line in a terminal.
        number: the number of the item or line of code, if items or lines of code are numbered.
    """

    text: str
    kind: Literal["title", "paragraph", "item", "code"] = "paragraph"
    style: str = ""
    number: int | None = None


Part: TypeAlias = Grid | Line


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """The answer of a command: tables and lines for a person, flat records (CSV) or the complete data (JSON) for a program.

    Attributes:
        parts: tables and lines, from top to bottom. Tables with the same headings get columns of the same widths.
        records: a function that returns flat records, all with the same keys.
        facts: a function that returns the complete data as dicts, lists, text and numbers.
        fields: the keys of the records, which are the columns of the CSV. If empty, the keys of the first record are used, so
            there must be at least one record.
    """

    parts: tuple[Part, ...]
    records: Callable[[], Sequence[Mapping[str, Any]]]
    facts: Callable[[], Any]
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return to_text(self.parts)

    def render(self, form: Format) -> str:
        """Return the document as text in one of `FORMATS`."""
        if form == "markdown":
            return to_markdown(self.parts)
        if form == "csv":
            return csv_text(self.records(), self.fields)
        return json_text(self.facts(), indent=2) + "\n" if form == "json" else str(self)

    def view(self, width: int) -> RenderableType:
        """Return the document drawn by `draw`, for a terminal of this width."""
        return draw(self.parts, width)


def draw(parts: Sequence[Part], width: int) -> RenderableType:
    """Return tables and lines as something that Rich can print, for a terminal of this width.

    If a table is too wide, values that all rows share move to a line below the table. If it is still too wide, values that all
    rows of a section share move above the section, and secondary columns are left out. If that is not enough, each interval
    moves to a line below its median, and further columns are left out. A line below the table names all columns that were
    left out.
    """
    drawn: list[RenderableType] = []
    min_widths: dict[tuple[Heading, ...], list[int]] = {}
    for part in parts:
        if isinstance(part, Grid):
            widths = min_widths.get(part.headings) or part.widths()
            min_widths[part.headings] = [max(pair) for pair in zip(widths, part.widths(), strict=True)]
    previous: Part | None = None
    for part in parts:
        if isinstance(part, Grid):
            drawn += _draw_grid(part, width, min_widths[part.headings])
        else:
            if isinstance(previous, Line) and (previous.kind, previous.style) != (part.kind, part.style):
                drawn.append(Text(""))
            drawn.append(Text(_format_numbered(part, part.text), style=part.style))
        previous = part
    return Group(*drawn)


def to_text(parts: Sequence[Part], width: int = FULL_WIDTH) -> str:
    """Return tables and lines as plain text, in lines of at most this width."""
    return plain_text(draw(parts, width), width)


def _select(values: tuple[str, ...], indexes: Sequence[int]) -> tuple[str, ...]:
    return tuple(values[index] for index in indexes) if values else ()


def _format_numbered(line: Line, text: str) -> str:
    return text if line.number is None else f"{line.number}. {text}"


def _draw_grid(grid: Grid, width: int, min_widths: Sequence[int]) -> Iterator[RenderableType]:
    """Yield the table for Rich, and lines below it that name the values and columns for which the table has no room.

    If `is_split` is set, yield several tables instead of such lines.
    """
    if grid.is_split:
        yield from (_make_table(share, is_narrow=False) for share in _split_columns(grid, width))
        return
    moved: list[str] = []
    kept = list(range(len(grid.headings)))
    for column, heading in enumerate(grid.headings):
        values = {row.cells[column] for row in grid.rows}
        if heading.can_move and len(values) == 1 and grid.select(kept).width() > width:
            kept.remove(column)
            moved.append(f"{heading.text} {values.pop()}")
    is_too_wide = grid.select(kept).width() > width
    of_section = [column for column in kept if is_too_wide and grid.headings[column].is_of_section]
    kept = [column for column in kept if column not in of_section]
    dropped = _secondary_columns_without_room(grid, kept, width)
    is_narrow = grid.select([column for column in kept if column not in dropped]).width() > width
    if is_narrow:  # folded cells are narrower, so some secondary columns may fit
        dropped = _columns_without_room(grid, kept, width)
    shown = [column for column in kept if column not in dropped]
    above = [
        ", ".join(f"{grid.headings[column].text} {cells[column]}" for column in of_section if cells[column])
        for cells in (section[0].cells for section in grid.sections)
    ]
    is_whole = len(shown) == len(min_widths) and not is_narrow
    yield _make_table(grid.select(shown), is_narrow=is_narrow, above=above, min_widths=min_widths if is_whole else None)
    if moved:
        yield Text(f"All rows: {', '.join(moved)}.")
    if dropped:
        yield Text(f"No room for: {', '.join(grid.headings[column].text for column in dropped)}; {grid.more}.")


def _make_table(grid: Grid, *, is_narrow: bool, above: Sequence[str] = (), min_widths: Sequence[int] | None = None) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, header_style="bold", padding=(0, 0) if is_narrow else (0, 1))
    for column, heading in enumerate(grid.headings):
        text = heading.text.replace(" ", "\n") if is_narrow else heading.text
        drawn.add_column(
            Text(text),
            justify="right" if heading.is_number else "left",
            overflow="fold",
            min_width=min_widths[column] if min_widths else None,
        )
    for index, section in enumerate(grid.sections):
        if index:
            drawn.add_section()
        if above and above[index]:
            drawn.add_row(Text(above[index], style="italic"))
        for row in section:
            cells = map(_fold, row.cells) if is_narrow else row.cells
            drawn.add_row(*map(Text, cells, row.styles or ("",) * len(row.cells)), style=row.style)
    return drawn


def _fold(cell: str) -> str:
    """Return the text of a cell with line breaks before and after an interval."""
    return cell.replace(" [", "\n[").replace("] ", "]\n").replace(" ±", "\n±")


def _secondary_columns_without_room(grid: Grid, columns: Sequence[int], width: int) -> list[int]:
    """Return the secondary columns to leave out so that the table fits without folding.

    If the other columns alone are too wide, return all secondary columns.
    """
    dropped: list[int] = []
    secondary = (column for column in columns if grid.headings[column].is_secondary)
    for column in sorted(secondary, key=lambda column: grid.headings[column].drop_order or 0):
        if grid.select([column for column in columns if column not in dropped]).width() <= width:
            break
        dropped.append(column)
    return sorted(dropped)


def _columns_without_room(grid: Grid, columns: Sequence[int], width: int) -> list[int]:
    """Return the columns to leave out so that no word in the remaining columns is broken."""

    def width_of(column: int) -> int:
        lines = (line for row in grid.rows for line in _fold(row.cells[column]).split("\n"))
        return 1 + max(map(len, [*grid.headings[column].text.split(" "), *lines]))

    widths = {column: width_of(column) for column in columns}
    dropped: list[int] = []
    can_go = (column for column in columns if grid.headings[column].drop_order is not None)
    for column in sorted(can_go, key=lambda column: grid.headings[column].drop_order or 0):
        if sum(widths.values()) + 2 <= width:
            break
        dropped.append(column)
        del widths[column]
    return sorted(dropped)


def _split_columns(grid: Grid, width: int) -> Iterator[Grid]:
    """Yield tables that fit into this width. Each of them has the first column and some of the other columns."""
    first, *others = (MARGIN + needed for needed in grid.widths())
    share: list[int] = []
    taken = 2 + first
    for column, needed in enumerate(others, 1):
        if share and taken + needed > width:
            yield grid.select([0, *share])
            share, taken = [], 2 + first
        share.append(column)
        taken += needed
    yield grid.select([0, *share])


def to_markdown(parts: Sequence[Part]) -> str:
    """Return tables and lines as Markdown. Empty lines separate the parts, except items of a list and lines of code."""
    blocks: list[str] = []
    before: tuple[str, bool] | None = None
    for part in parts:
        if isinstance(part, Grid):
            lines = [
                table_row(escaped(heading.text) for heading in part.headings),
                table_row("---:" if heading.is_number else "---" for heading in part.headings),
                *(table_row(map(escaped, row.cells)) for section in part.sections for row in section),
            ]
            blocks.append("\n".join(lines))
            before = None
            continue
        kind = part.kind, part.number is None
        text = f"`{part.text}`" if part.kind == "code" else escaped(part.text)
        if part.kind in ("title", "paragraph"):
            blocks.append(f"**{text}**" if part.kind == "title" else text)
        else:
            item = f"- {text}" if part.number is None else _format_numbered(part, text)
            if before == kind or (before and part.number is not None and not before[1]):
                blocks[-1] += f"\n{item}"
            else:
                blocks.append(item)
        before = kind
    return "\n\n".join(blocks) + "\n"
