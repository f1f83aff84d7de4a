"""Strict reading and writing of fact files: CSV with commas, tabs or semicolons, and JSON lines; .gz of either.

A file is read right or refused in one line that names file, line and remedy. Text is kept literally: no stripping, no
numbers, no missing values. Layout is decided by the header alone, so an answer can never change how a file is read.
"""

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sims.fact_report import ConflictPolicy, Facts, Row, facts_from_rows
from theory.console import Refusal

LARGEST_FILE_BYTES = 2 << 30  # after decompression
_JSON_LINES, _GZIP = {".jsonl", ".ndjson"}, ".gz"
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}
# The byte order marks, longest first: UTF-32LE begins like UTF-16LE.
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32-le",
    b"\x00\x00\xfe\xff": "utf-32-be",
    b"\xef\xbb\xbf": "utf-8",
    b"\xff\xfe": "utf-16-le",
    b"\xfe\xff": "utf-16-be",
}
_NOT_TEXT = {b"PK\x03\x04": "a spreadsheet or zip archive", b"%PDF": "a PDF", b"PAR1": "a Parquet file"}


@dataclass
class _Reading:
    """What is collected while a file is read."""

    rows: list[Row] = field(default_factory=list)
    blank_lines: int = 0
    notes: list[str] = field(default_factory=list)
    layout: str = ""


def read_facts(
    path: str | os.PathLike[str],
    *,
    question_column: str = "question",
    answer_column: str = "answer",
    conflicts: ConflictPolicy = "set-aside",
    identity: Callable[[str], str] = str,
) -> Facts:
    """Read a CSV, TSV or JSONL file of facts; raises Refusal if any part of it cannot be read as it stands.

    A column is found by its exact name, else by the name trimmed and without regard to case (noted in the report).
    `conflicts` is explained in `sims.fact_report.facts_from_rows`. `identity` normalizes a question before it is
    compared with others; raises Refusal if that leaves nothing of one.
    """
    path = Path(path)
    if question_column == answer_column:
        raise Refusal(f"{path}: question and answer are both column {question_column!r}; name two columns")
    text, encoding = _decode(path, _read_bytes(path))
    columns = (question_column, answer_column)
    read = _read_json_lines if _layout_ending(path) in _JSON_LINES else _read_delimited
    reading = read(path, text, columns)
    _check_rows(path, reading.rows)
    rows = [Row(identity(row.question), row.answer, row.line) for row in reading.rows]
    if empty := [row.line for row in rows if not row.question.strip()]:
        raise Refusal(
            f"{path}: line {empty[0]}: nothing is left of the question when it is normalized; correct it, or ask for "
            "fewer steps"
        )
    return facts_from_rows(
        rows,
        conflicts=conflicts,
        source=str(path),
        layout=f"{reading.layout}, {encoding}",
        blank_lines=reading.blank_lines,
        notes=reading.notes,
    )


def read_questions(path: str | os.PathLike[str], column: str = "question") -> list[str]:
    """The questions of a file, read as by `read_facts`, whatever its other columns are; repetitions stay."""
    path = Path(path)
    text, _ = _decode(path, _read_bytes(path))
    read = _read_json_lines if _layout_ending(path) in _JSON_LINES else _read_delimited
    reading = read(path, text, (column, column))
    _check_rows(path, reading.rows)
    return [row.question for row in reading.rows]


def write_facts(path: str | os.PathLike[str], questions: Sequence[str], answers: Sequence[str]) -> None:
    """Write facts so that `read_facts` gives them back exactly; CSV, TSV or JSON lines, and .gz, by the file's ending.

    Raises Refusal if the file exists, or if a text could not be read back (empty, NUL, not Unicode).
    """
    path = Path(path)
    contents = facts_as_text(questions, answers, path).encode()
    if path.suffix.lower() == _GZIP:
        contents = gzip.compress(contents, mtime=0)  # the same bytes whenever they are written
    try:
        with path.open("xb") as file:
            file.write(contents)
    except FileExistsError:
        raise Refusal(f"{path}: exists already; choose another name or delete it") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be written ({error.strerror}); choose another place") from None


def facts_as_text(questions: Sequence[str], answers: Sequence[str], path: Path = Path("facts.csv")) -> str:
    """What `write_facts` writes, or compresses, to a file of this name; raises Refusal where it would."""
    rows = [Row(question, answer, line) for line, (question, answer) in _numbered(questions, answers)]
    _check_rows(path, rows)
    ending = _layout_ending(path)
    if ending in _JSON_LINES:
        lines = [json.dumps({"question": r.question, "answer": r.answer}, ensure_ascii=False) for r in rows]
    else:
        delimiter = "\t" if ending in (".tsv", ".tab") else ","
        header = Row("question", "answer", 1)
        lines = [delimiter.join(_quoted(t, delimiter) for t in (r.question, r.answer)) for r in [header, *rows]]
    return "".join(line + "\n" for line in lines)


def _layout_ending(path: Path) -> str:
    """The last ending of a file's name that says how the text in it is laid out."""
    return next((suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() != _GZIP), "")


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE_BYTES + 1)
        if raw[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
                raw = file.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        raise Refusal(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise Refusal(f"{path}: is a directory; name a file in it") from None
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise Refusal(f"{path}: is damaged gzip data; compress it again") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    if len(raw) > LARGEST_FILE_BYTES:
        raise Refusal(f"{path}: holds more than {LARGEST_FILE_BYTES >> 30} GiB; split it")
    if not raw:
        raise Refusal(f"{path}: is empty; it needs a header line such as question,answer and one row or more")
    return raw


def _decode(path: Path, raw: bytes) -> tuple[str, str]:
    """The text without byte order mark, and a name for its encoding."""
    for magic, what in _NOT_TEXT.items():
        if raw.startswith(magic):
            raise Refusal(f"{path}: is {what}, not text; export it as CSV in UTF-8")
    mark = next((mark for mark in _BYTE_ORDER_MARKS if raw.startswith(mark)), b"")
    encoding = _BYTE_ORDER_MARKS.get(mark, "utf-8")
    body = raw[len(mark) :]
    if encoding == "utf-8" and b"\0" in body:
        raise _nul_refusal(path, body[: body.index(b"\0")].decode(errors="replace"))
    try:
        text = body.decode(encoding)
    except UnicodeDecodeError as error:
        line = _line_number(body[: error.start].decode(encoding, errors="replace"))
        remedy = "convert it, e.g. iconv -f ISO-8859-1 -t UTF-8" if encoding == "utf-8" else "save it again as UTF-8"
        offset = len(mark) + error.start
        raise Refusal(f"{path}: line {line}: byte {offset} is not valid {encoding.upper()}; {remedy}") from None
    if "\0" in text:
        raise _nul_refusal(path, text[: text.index("\0")])
    return text, encoding.upper() + (" with byte order mark" if mark else "")


def _nul_refusal(path: Path, before: str) -> Refusal:
    return Refusal(
        f"{path}: line {_line_number(before)}: holds a NUL byte; remove it, or if the file is UTF-16 "
        "convert it, e.g. iconv -f UTF-16LE -t UTF-8"
    )


def _line_number(before: str) -> int:
    """The line on which the text after `before` goes on; LF, CRLF and CR all end lines."""
    return len(_lines(before))


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read_delimited(path: Path, text: str, columns: tuple[str, str]) -> _Reading:
    reading = _Reading()
    delimiter = _find_delimiter(path, text, columns)
    reading.layout = f"CSV with {_DELIMITERS[delimiter]}"
    records = _records(path, text, delimiter)
    header: list[str] = []
    places: list[int] = []
    for line, record in records:
        if not record:
            reading.blank_lines += 1
        elif not header:
            header = record
            places = [_find_column(f"{path}: line {line}", header, column, reading.notes) for column in columns]
        elif len(record) != len(header):
            raise Refusal(
                f"{path}: line {line}: has {len(record)} field(s) where the header has {len(header)}; "
                "complete the row, or put a field that holds the delimiter in double quotes"
            )
        else:
            reading.rows.append(Row(record[places[0]], record[places[1]], line))
    broken = [
        row.line for row in reading.rows if any(end in text for text in (row.question, row.answer) for end in "\r\n")
    ]
    if broken:  # right in a quoted field, but also what a forgotten quote looks like
        reading.notes.append(f"{len(broken)} row(s) hold line breaks, the first at line {broken[0]}")
    return reading


def _find_delimiter(path: Path, text: str, columns: tuple[str, str]) -> str:
    """The delimiter under which the header has both columns; Refusal if there is none."""
    wanted = {_folded(column) for column in columns}
    header: list[str] = []
    line = 1
    broken: Refusal | None = None
    for delimiter in _DELIMITERS:
        try:
            line, record = next(((line, record) for line, record in _records(path, text, delimiter) if record), (1, []))
        except Refusal as refusal:  # quotes that make no sense under this delimiter
            broken = broken or refusal
            continue
        if wanted <= {_folded(name) for name in record}:
            return delimiter
        header = max(header, record, key=len)
    if not header:
        raise broken or Refusal(f"{path}: holds blank lines only; it needs a header line such as question,answer")
    missing = [repr(column) for column in columns if _folded(column) not in map(_folded, header)] or map(repr, columns)
    raise Refusal(
        f"{path}: line {line}: the header has no column {' or '.join(missing)}, it has "
        f"{', '.join(_shown(name) for name in header[:8])}; add a header line such as question,answer "
        "or name the columns with --question-column and --answer-column"
    )


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which the record begins, its fields), by RFC 4180 with any line ending; a blank line has no fields."""
    limit = csv.field_size_limit(max(len(text), 131072))  # the limit is global: raise it, and put it back
    try:
        records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        line = 1
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except csv.Error as error:
                raise Refusal(
                    f"{path}: line {line}: a quoted field that begins in this row is not closed properly ({error}); "
                    'close it, and write a quote inside quotes twice ("")'
                ) from None
            yield line, record
            line = records.line_num + 1
    finally:
        csv.field_size_limit(limit)


def _find_column(place: str, names: Iterable[str], column: str, notes: list[str]) -> int:
    """Where `column` stands among `names`: its exact name if there is one, else the trimmed name in any case."""
    names = list(names)
    exact = [position for position, name in enumerate(names) if name == column]
    found = exact or [position for position, name in enumerate(names) if _folded(name) == _folded(column)]
    if len(found) > 1:
        raise Refusal(f"{place}: column {column!r} stands there {len(found)} times; rename or delete all but one")
    if not found:
        raise Refusal(
            f"{place}: has no {column!r}; add it or name the right one with --question-column or --answer-column"
        )
    if not exact:
        notes.append(f"column {_shown(names[found[0]])} was read as {column!r}")
    return found[0]


def _read_json_lines(path: Path, text: str, columns: tuple[str, str]) -> _Reading:
    reading = _Reading(layout="JSON lines")
    for line, content in enumerate(_lines(text), 1):
        if not content.strip():
            reading.blank_lines += 1
            continue
        place = f"{path}: line {line}"
        names, values = _json_object(place, content)
        notes: list[str] = []
        texts = []
        for column in columns:
            value = values[_find_column(place, names, column, notes)]
            if not isinstance(value, str):
                raise Refusal(
                    f'{place}: {column!r} is {json.dumps(value)[:40]}, not text; write it in quotes, "like this"'
                )
            texts.append(value)
        reading.notes.extend(note for note in notes if note not in reading.notes)
        reading.rows.append(Row(texts[0], texts[1], line))
    reading.blank_lines -= text.endswith(("\n", "\r"))  # the end of the last line is no blank line
    return reading


def _json_object(place: str, content: str) -> tuple[list[str], list[object]]:
    """Names and values of the JSON object on this line, in order, repeated names included."""
    try:
        pairs = json.loads(content, object_pairs_hook=lambda pairs: pairs)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{place}: is not valid JSON ({error}); write one object per line") from None
    if not content.lstrip().startswith("{"):
        raise Refusal(f'{place}: is not a JSON object; write {{"question": "...", "answer": "..."}} on each line')
    return [name for name, _ in pairs], [value for _, value in pairs]


def _check_rows(path: Path, rows: Sequence[Row]) -> None:
    if not rows:
        raise Refusal(f"{path}: has a header but no facts; add one row or more")
    for what in ("question", "answer"):
        blank = [row.line for row in rows if not getattr(row, what).strip()]
        if blank:
            more = f" (and {len(blank) - 1} more rows)" if len(blank) > 1 else ""
            raise Refusal(f"{path}: line {blank[0]}{more}: the {what} is empty; fill it in or delete the row")
        for row in rows:
            check_text(f"{path}: line {row.line}: the {what}", getattr(row, what))


def check_text(place: str, text: str) -> None:
    """Raise Refusal, naming the place, for a text that no file of facts can hold."""
    if not text.strip():
        raise Refusal(f"{place} is empty; give one")
    if "\0" in text:  # a JSON escape can still spell one
        raise Refusal(f"{place} holds a NUL character; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refusal(f"{place} holds half a surrogate pair, which is no character; correct it") from None


def _numbered(questions: Sequence[str], answers: Sequence[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    return enumerate(zip(questions, answers, strict=True), 2)


def _quoted(text: str, delimiter: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in (delimiter, '"', "\r", "\n")) else text


def _folded(name: str) -> str:
    return name.strip().casefold()


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else name[:37] + "...")
