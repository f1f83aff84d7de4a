"""Fact files: read right, or refused in one line that names file, line and remedy."""

import csv
import gzip
import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.fact_files import read_facts, write_facts
from sims.fact_report import Row, facts_from_rows
from theory.console import Refusal

HEADER = b"question,answer\n"
FRANCE = b"Capital of France?,Paris\n"
GZIPPED = gzip.compress(HEADER + FRANCE, mtime=0)

# What each awkward file must give: its facts, and words that its report or refusal must hold.
READ = {
    "01_bom.csv": [("Capital of France?", "Paris"), ("Capital of Spain?", "Madrid")],
    "02_crlf.csv": [("Capital of France?", "Paris"), ("Capital of Spain?", "Madrid")],
    "03_cr_only.csv": [("Capital of France?", "Paris"), ("Capital of Spain?", "Madrid")],
    "04_quotes_newlines.csv": [
        ('Who said "I think, therefore I am"?', "René Descartes, 1637"),
        ("Line one\nline two?", "first\nsecond\r\nthird"),
        ("comma, in question", "a,b,c"),
    ],
    "12_utf16le_bom.csv": [("Capital of France?", "Paris")],
    "16_conflicts.csv": [("Capital of Spain?", "Madrid"), ("Capital of Italy?", "Rome")],
    "17_near_duplicates.csv": [
        ("Capital of France?", "Paris"),
        ("capital of france?", "PARIS"),
        ("Capital of France? ", "Paris "),
        ("Capital\u00a0of France?", "Paris"),
        ("Caf\u00e9?", "A"),
        ("Cafe\u0301?", "B"),
    ],
    "21_semicolon.csv": [("Capital of France?", "Paris")],
    "22_tabs.tsv": [("Capital of France?", "Paris")],
    "23_header_variants.csv": [("Capital of France?", "Paris")],
    "24_extra_columns.csv": [("Capital of France?", "Paris"), ("Capital of Spain?", "Madrid")],
    "27_single_fact.csv": [("Capital of France?", "Paris")],
    "28_all_same_answer.csv": [(f"q{number}?", "yes") for number in range(1000)],
    "29_formula_injection.csv": [("=1+1", '=HYPERLINK("http://127.0.0.1/","x")'), ("+cmd", "@SUM(A1)")],
    "30_literal_special_strings.csv": [
        ("Country code of Namibia?", "NA"),
        ("null?", "null"),
        ("nan?", "NaN"),
        ("none?", "None"),
        ("true?", "TRUE"),
        ("zero-padded?", "00123"),
        ("big?", "1e400"),
    ],
    "31_no_final_newline.csv": [("Capital of France?", "Paris")],
    "32_blank_lines.csv": [("Capital of France?", "Paris")],
    "33_prefix_questions.csv": [("a", "1"), ("ab", "2"), ("abc", "3"), ("abcd", "4")],
    "34_answer_superset.csv": [("q1?", "New York"), ("q2?", "New York City"), ("q3?", "New")],
}
REFUSED = {
    "05_empty_answer.csv": ("line 3 (and 1 more rows)", "answer is empty", "fill it in or delete"),
    "06_empty_question.csv": ("line 2", "question is empty", "fill it in or delete"),
    "07_missing_column.csv": ("line 1", "no column 'answer'", "'reply'", "--answer-column"),
    "08_ragged_short.csv": ("line 3", "1 field(s) where the header has 2", "complete the row"),
    "09_ragged_long.csv": ("line 3", "3 field(s) where the header has 2", "double quotes"),
    "10_latin1.csv": ("line 2", "byte 29", "UTF-8", "iconv"),
    "11_mixed_invalid_utf8.csv": ("line 3", "byte 32", "UTF-8", "iconv"),
    "13_zero_rows.csv": ("no facts", "add one row"),
    "14_zero_bytes.csv": ("is empty", "header line"),
    "15_no_header.csv": ("line 1", "no column 'question' or 'answer'", "add a header line"),
    "19_nul_bytes.csv": ("line 2", "NUL byte", "remove it"),
    "20_unterminated_quote.csv": ("line 2", "not closed", "close it"),
    "25_duplicate_header.csv": ("line 1", "'answer' stands there 2 times", "rename or delete"),
    "35_jsonl_bad_line.jsonl": ("line 2", "not valid JSON", "one object per line"),
    "36_binary_named.csv": ("line 1", "no column 'question' or 'answer'"),
    "37_is_a_directory.csv": ("is a directory", "name a file"),
}
COUNTED = {"18_unicode.csv": 7, "26_huge_field.csv": 2, "38_synthetic_5350_with_conflicts.csv": 4750}


def facts_of(path, **options):
    facts = read_facts(path, **options)
    return list(zip(facts.questions, facts.answers, strict=True))


def refusal_of(path, **options) -> str:
    with pytest.raises(Refusal) as refusal:
        read_facts(path, **options)
    text = str(refusal.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text.removeprefix(str(path))) < 400
    return text


@pytest.mark.parametrize("name", READ)
def test_awkward_file_is_read_right(shared_data, name):
    assert facts_of(shared_data / "awkward" / name) == READ[name]


@pytest.mark.parametrize("name", REFUSED)
def test_awkward_file_is_refused_with_line_and_remedy(shared_data, name):
    text = refusal_of(shared_data / "awkward" / name)
    assert [words for words in REFUSED[name] if words not in text] == []


def test_every_awkward_file_has_its_expectation(shared_data):
    present = {path.name for path in (shared_data / "awkward").iterdir()} - {"MANIFEST.tsv"}
    assert present == READ.keys() | REFUSED.keys() | COUNTED.keys()


@pytest.mark.parametrize("name", COUNTED)
def test_awkward_file_has_the_facts_of_its_manifest(shared_data, name):
    facts = read_facts(shared_data / "awkward" / name)
    assert len(facts) == COUNTED[name]
    if name.startswith("18"):
        assert facts.answers[0] == "\U0001f1eb\U0001f1f7\U0001f468\u200d\U0001f469\u200d\U0001f467"
        assert facts.answers[-1] == "\u202eabc\u202c"
    if name.startswith("26"):
        assert facts.answers[0] == "A" * 200_000
    if name.startswith("38"):
        report = facts.report
        assert (report.rows, report.distinct_questions, len(report.conflicts)) == (5350, 5000, 250)
        assert report.merged_rows + report.rows_set_aside == 600  # 250 second answers with their first, 100 repetitions
        assert facts.answers[:1] == ("KE087PM27KFTUBJ76IFCNIMSWEBCAIZG",)


@pytest.mark.parametrize(
    ("name", "rows", "questions", "conflicts"),
    [
        ("entityquestions_test.csv", 22_075, 22_036, 31),
        ("truthfulqa.csv", 817, 817, 0),
        ("pararel_uuid.csv", 29_411, 29_394, 14),
        ("pararel_trex.csv", 27_610, 25_801, 677),
        ("country_facts.csv", 1_981, 1_981, 0),
        ("ourairports_regions.csv", 3_987, 3_986, 1),
        ("world_cities_ids.csv", 34_032, 33_909, 119),
    ],
)
def test_real_file_has_the_counts_of_its_description(shared_data, name, rows, questions, conflicts):
    facts = read_facts(shared_data / name)
    report = facts.report
    assert (report.rows, report.distinct_questions, len(report.conflicts)) == (rows, questions, conflicts)
    assert len(facts) == questions - conflicts
    assert report.rows == report.facts + report.merged_rows + report.rows_set_aside
    with (shared_data / name).open(newline="", encoding="utf-8") as file:  # an independent reading of the same rows
        plain = {(row["question"], row["answer"]) for row in csv.DictReader(file)}
    assert set(zip(facts.questions, facts.answers, strict=True)) <= plain


def test_compressed_file_with_more_columns(shared_data):
    assert read_facts(shared_data / "pararel_paraphrases.csv.gz").report.rows == 224_674


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (b"\xef\xbb\xbf" + HEADER + FRANCE, [("Capital of France?", "Paris")]),
        ((HEADER + FRANCE).decode().encode("utf-16"), [("Capital of France?", "Paris")]),
        (b"\xfe\xff" + (HEADER + FRANCE).decode().encode("utf-16-be"), [("Capital of France?", "Paris")]),
        ((HEADER + FRANCE).decode().encode("utf-32"), [("Capital of France?", "Paris")]),
        ((HEADER + FRANCE).replace(b"\n", b"\r"), [("Capital of France?", "Paris")]),
        (b" Question ;ANSWER\nq;a,b\n", [("q", "a,b")]),
        (HEADER + b'"a\r\nb","c ""d"""\n', [("a\r\nb", 'c "d"')]),
        (HEADER + b"q,\xe2\x80\xa8x\x0by\x85z\n".replace(b"\x85", "\u0085".encode()), [("q", "\u2028x\x0by\u0085z")]),
        (b"answer,Answer,question\na,b,q\n", [("q", "a")]),
        (HEADER + b"q," + b"x" * 200_000 + b"\n", [("q", "x" * 200_000)]),
        (GZIPPED, [("Capital of France?", "Paris")]),
    ],
)
def test_unusual_but_readable(tmp_path, contents, expected):
    path = tmp_path / "facts.csv"
    path.write_bytes(contents)
    limit = csv.field_size_limit()
    assert facts_of(path) == expected
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (HEADER + FRANCE + b"q\n", ("line 3", "1 field(s)")),
        (HEADER + b"q,a,b\n", ("line 2", "3 field(s)")),
        (HEADER + FRANCE + b"q,\n", ("line 3", "answer is empty")),
        (HEADER + b"q,a\n \t ,b\n", ("line 3", "question is empty")),
        (HEADER + "q,\u00a0\u3000\n".encode(), ("line 2", "answer is empty")),
        (HEADER + b"Qu\xe9bec?,a\n", ("line 2", "byte 18", "iconv")),
        (HEADER + b"q,a\x00\n", ("line 2", "NUL")),
        ((HEADER + FRANCE).decode().encode("utf-16-le"), ("line 1", "NUL", "UTF-16")),
        ((HEADER + FRANCE).decode().encode("utf-16")[:-1], ("UTF-16", "save it again")),
        (HEADER + b'"a\nb",c\n"never closed,x\ny,z\n', ("line 4", "not closed")),
        (HEADER + b'"closed"then,x\n', ("line 2", "not closed properly")),
        (b"question,answer,answer\na,b,c\n", ("line 1", "2 times")),
        (b"question,Answer,ANSWER\na,b,c\n", ("line 1", "2 times")),
        (b"\n\nquestion,reply\na,b\n", ("line 3", "'answer'", "'reply'")),
        (b'"question","reply"\n', ("line 1", "'answer'", "'reply'")),
        (b"\n\r\n", ("blank lines only",)),
        (b"", ("is empty",)),
        (HEADER, ("no facts",)),
        (GZIPPED[:-9], ("damaged gzip",)),
        (b"PK\x03\x04rest of a spreadsheet", ("spreadsheet", "CSV")),
        (np.random.default_rng(0).bytes(4096), ("line",)),
    ],
)
def test_refused_in_one_line(tmp_path, contents, words):
    path = tmp_path / "facts.csv"
    path.write_bytes(contents)
    text = refusal_of(path)
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"question":"b","answer":}', ("line 2", "not valid JSON")),
        (b'{"question":"b","answer":3}', ("line 2", "'answer' is 3, not text", "quotes")),
        (b'{"question":"b","answer":null}', ("line 2", "'answer' is null")),
        (b'{"question":"b","answer":["x"]}', ("line 2", "not text")),
        (b'{"question":"b"}', ("line 2", "no 'answer'")),
        (b'{"question":"b","answer":"x","answer":"y"}', ("line 2", "2 times")),
        (b'{"question":"b","answer":"\\ud800"}', ("line 2", "surrogate")),
        (b'{"question":"b","answer":"\\u0000x"}', ("line 2", "NUL")),
        (b'{"question":"b","answer":" "}', ("line 2", "answer is empty")),
        (b'["b","x"]', ("line 2", "not a JSON object")),
        (b"[" * 100_000, ("line 2", "not valid JSON")),
        (b'{"question":"b","answer":' + b"9" * 5000 + b"}", ("line 2", "not valid JSON")),
    ],
)
def test_bad_json_line_is_named(tmp_path, line, words):
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'{"question":"a","answer":"1"}\n' + line + b"\n")
    text = refusal_of(path)
    assert [word for word in words if word not in text] == []


def test_json_lines_with_blank_lines_and_any_ending(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b'{"answer":"1","question":"a","x":2}\r\n\r\n{"Question ":"b","answer":"\\u00e9\\n"}')
    facts = read_facts(path)
    assert list(zip(facts.questions, facts.answers, facts.lines, strict=True)) == [("a", "1", 1), ("b", "é\n", 3)]
    assert facts.report.blank_lines == 1
    assert facts.report.notes == ("column 'Question ' was read as 'question'",)


def test_missing_file_and_equal_columns(tmp_path):
    assert "no such file" in refusal_of(tmp_path / "absent.csv")
    assert "name two columns" in refusal_of(tmp_path / "absent.csv", answer_column="question")


def test_report_accounts_for_lines(tmp_path):
    path = tmp_path / "facts.csv"
    path.write_bytes(b"\n" + HEADER + b'\n"a\nb",1\n\nc,2\n\n')
    facts = read_facts(path)
    assert facts.lines == (4, 7)
    assert facts.report.blank_lines == 4
    assert facts.report.layout == "CSV with commas, UTF-8"
    assert facts.report.notes == ("1 row(s) hold line breaks, the first at line 4",)
    assert facts.report.question_characters.longest == 3


CONFLICTING = [
    Row("France?", "Paris", 2),
    Row("France?", "Lyon", 3),
    Row("Spain?", "Madrid", 4),
    Row("Spain?", "Madrid", 5),
    Row("Italy?", "Rome", 6),
    Row("France?", "Paris", 7),
]


@pytest.mark.parametrize(
    ("policy", "lines", "merged", "set_aside"),
    [("set-aside", (4, 6), 1, 3), ("first", (2, 4, 6), 2, 1), ("keep", (2, 3, 4, 6, 7), 1, 0)],
)
def test_conflict_policies(policy, lines, merged, set_aside):
    facts = facts_from_rows(CONFLICTING, conflicts=policy)
    report = facts.report
    assert facts.lines == lines
    assert (report.rows, report.facts, report.merged_rows, report.rows_set_aside) == (6, len(lines), merged, set_aside)
    assert [conflict.answers for conflict in report.conflicts] == [{"Paris": [2, 7], "Lyon": [3]}]
    assert report.best_exact_recall == pytest.approx(5 / 6)
    assert report.distinct_questions == 3


def test_conflicts_can_be_refused_by_name():
    with pytest.raises(Refusal, match=r"'France\?': 'Paris' \(line 2, 7\), 'Lyon' \(line 3\)"):
        facts_from_rows(CONFLICTING, conflicts="refuse")
    assert len(facts_from_rows(CONFLICTING[2:5], conflicts="refuse")) == 2
    with pytest.raises(Refusal, match="none is left"):
        facts_from_rows(CONFLICTING[:2])


rows = st.lists(
    st.builds(Row, st.sampled_from("abcde"), st.sampled_from("xyz"), st.integers(1, 9)), min_size=1, max_size=30
)


@given(rows, st.sampled_from(["set-aside", "first", "keep"]))
def test_every_row_is_accounted_for(drawn, policy):
    answers = {question: {row.answer for row in drawn if row.question == question} for question in "abcde"}
    try:
        facts = facts_from_rows(drawn, conflicts=policy)
    except Refusal:
        assert policy == "set-aside"
        assert all(len(of_one) != 1 for of_one in answers.values())
        return
    report = facts.report
    assert report.rows == len(drawn) == report.facts + report.merged_rows + report.rows_set_aside
    assert report.facts == len(facts)
    assert sum(conflict.rows for conflict in report.conflicts) == sum(len(answers[row.question]) > 1 for row in drawn)
    if policy != "keep":
        assert len(set(facts.questions)) == len(facts)
    if policy == "first":
        assert set(facts.questions) == {row.question for row in drawn}


# Any text that has something to see; NUL and half surrogates cannot stand in a fact.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@given(st.dictionaries(texts, texts, min_size=1, max_size=8), st.sampled_from([".csv", ".tsv", ".jsonl"]))
@example({"\ufeffq": "\ufeff", ' "': '"', "a\rb": "\r\nc", "=1": "NA", " x ": "00123"}, ".csv")
@example({"\u2028q\x85": "a\tb", '"': "\x1c x"}, ".tsv")
def test_written_facts_are_read_back_exactly(tmp_path_factory, facts, ending):
    path = tmp_path_factory.mktemp("facts") / ("facts" + ending)
    write_facts(path, list(facts), list(facts.values()))
    assert facts_of(path) == list(facts.items())


@given(st.dictionaries(texts, texts, min_size=1, max_size=8))
def test_written_csv_means_the_same_to_another_reader(tmp_path_factory, facts):
    path = tmp_path_factory.mktemp("facts") / "facts.csv"
    write_facts(path, list(facts), list(facts.values()))
    plain = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert plain == [["question", "answer"], *map(list, facts.items())]


def test_writing_refuses_what_could_not_be_read_back(tmp_path):
    path = tmp_path / "facts.csv"
    for answer, words in [(" ", "empty"), ("a\0", "NUL"), ("\ud800", "surrogate")]:
        with pytest.raises(Refusal, match=words):
            write_facts(path, ["q"], [answer])
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(Refusal, match="exists already"):
        write_facts(path, ["q"], ["a"])
    assert path.read_text() == "mine"
    with pytest.raises(Refusal, match="cannot be written"):
        write_facts(tmp_path / "absent" / "facts.csv", ["q"], ["a"])


def test_fingerprint_is_of_content_and_unambiguous():
    def fingerprint(*facts):
        return facts_from_rows([Row(q, a, line) for line, (q, a) in enumerate(facts)], source=str(facts)).fingerprint

    assert fingerprint(("ab", "c"), ("d", "e")) == fingerprint(("ab", "c"), ("d", "e"))
    different = [(("ab", "c"), ("d", "e")), (("a", "bc"), ("d", "e")), (("d", "e"), ("ab", "c")), (("ab", "c"),)]
    assert len({fingerprint(*facts) for facts in different}) == len(different)
