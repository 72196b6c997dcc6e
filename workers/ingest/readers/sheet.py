"""CSV comes in as text and leaves as one table, whose header is repeated in each of its chunks."""

from __future__ import annotations

import csv
import io

from schemas.errors import Unreadable
from workers.ingest.parsed import MAX_INPUT, Builder, Parsed

_DELIMITERS = ",;\t|"


def read_csv(text: str) -> Parsed:
    """Read a table; the delimiter is whichever of ``, ; tab |`` its first line holds most of.

    Raises:
        Unreadable: a quoted field never ends, or the file is otherwise no CSV.
    """
    first = text.lstrip("\n").split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    # A process-wide setting of the csv module, always the same: its default refuses fields beyond 128 kB.
    csv.field_size_limit(MAX_INPUT)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines: list[str] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                lines.append(" | ".join(" ".join(cell.split()).replace("|", "/") for cell in row))
                if len(lines) == 1:
                    lines.append(" | ".join(["---"] * len(row)))
    except csv.Error as error:
        raise Unreadable(f"line {reader.line_num} is not valid CSV: {error}") from None
    builder = Builder()
    builder.table(lines, head=2)
    return builder.parsed()
