"""Question identity: steps in their order, strict parsing, and facts read by it with every row accounted for."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.fact_files import read_facts, write_facts
from sims.memory.identity import Identity, write_conflicts
from theory.console import Refusal


def written(folder: Path, *rows: tuple[str, str]) -> Path:
    path = folder / "facts.csv"
    write_facts(path, *zip(*rows, strict=True))
    return path


@given(st.text(max_size=20))
def test_exact_identity_is_the_text_and_one_of_all_steps_is_a_fixed_point_of_space(text):
    assert Identity()(text) == Identity.parse("exact")(text) == text
    normalized = Identity.parse("nfc,casefold,space")(text)
    assert Identity.parse("space")(normalized) == normalized


def test_each_step_and_their_order_matter():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert composed != decomposed
    assert Identity.parse("nfc")(decomposed) == Identity.parse("nfc")(composed) == composed
    assert Identity.parse("casefold")("Stra\u00dfe") == "strasse"
    assert Identity.parse("space")(" a\t b\u00a0c\n") == "a b c"
    # U+0345 folds to iota, which is no mark any more: composing before folding is not folding before composing.
    letters = "\u0391\u0345"
    one, other = Identity.parse("nfc,casefold")(letters), Identity.parse("casefold,nfc")(letters)
    assert one == unicodedata.normalize("NFC", letters).casefold()
    assert other == unicodedata.normalize("NFC", letters.casefold())
    assert str(Identity.parse("casefold,nfc")) == "casefold,nfc"


@pytest.mark.parametrize("text", ["", "nfkc", "nfc, space", "NFC", "nfc,", "exact,nfc"])
def test_what_is_not_known_is_refused_with_what_is(text):
    with pytest.raises(Refusal, match="nfc, casefold, space"):
        Identity.parse(text)


def test_a_step_may_not_stand_there_twice():
    with pytest.raises(Refusal, match="twice"):
        Identity.parse("space,nfc,space")


def test_spellings_of_one_question_are_merged_or_conflict(tmp_path):
    path = written(
        tmp_path,
        ("Who is Ada?", "a poet"),  # conflicts with line 3 exactly, and so do all its spellings
        ("Who is Ada?", "a writer"),
        ("who is  ada?", "a poet"),
        ("Where is Rome?", "Italy"),  # the same fact as in lines 6 and 7
        ("where is rome?", "Italy"),
        ("Where is Rome?", "Italy"),
        ("Where is Oslo?", "Norway"),
        ("who is ada?", "a poet"),  # an exact repetition, named all the same
        ("Who is Ada?", "a poet"),
    )
    identity = Identity.parse("casefold,space")
    found = read_facts(path, identity=identity)
    assert found.questions == ("where is rome?", "where is oslo?")
    assert found.answers == ("Italy", "Norway")
    assert found.lines == (5, 8)
    report = found.report
    assert (report.rows, report.facts, report.merged_rows, report.rows_set_aside) == (9, 2, 2, 5)
    assert [(conflict.question, conflict.answers) for conflict in report.conflicts] == [
        ("who is ada?", {"a poet": [2, 4, 9, 10], "a writer": [3]})
    ]
    assert read_facts(path, identity=identity, conflicts="first").answers == ("a poet", "Italy", "Norway")
    with pytest.raises(Refusal, match="several answers"):
        read_facts(path, identity=identity, conflicts="refuse")


def test_a_question_of_which_nothing_is_left_is_refused_with_its_line(tmp_path):
    path = written(tmp_path, ("fine", "a"), ("abc", "b"))
    with pytest.raises(Refusal, match="line 3: nothing is left"):
        read_facts(path, identity=lambda text: text.strip("abc"))


def test_conflicts_are_written_with_their_lines_and_can_be_corrected_and_read(tmp_path):
    rows = [('Who, "she"?', "one"), ("fine", "x"), ('Who, "she"?', "two"), ('who, "she"?', "one")]
    found = read_facts(written(tmp_path, *rows), identity=Identity.parse("casefold"))
    side = tmp_path / "conflicts.csv"
    assert write_conflicts(side, found.report.conflicts) == 3
    text = side.read_text(encoding="utf-8")
    assert text.splitlines()[:2] == ["line,question,answer", '2,"who, ""she""?",one']
    assert read_facts(side, conflicts="keep").answers == ("one", "two", "one")
    with pytest.raises(Refusal, match="exists already"):
        write_conflicts(side, found.report.conflicts)
    with pytest.raises(Refusal, match="cannot be written"):
        write_conflicts(tmp_path / "nowhere" / "conflicts.csv", found.report.conflicts)
