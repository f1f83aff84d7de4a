"""The account of the theory is what would be written now, and its links and pictures are there."""

import re
from pathlib import Path

import pytest

from figures import account
from figures.theory_pictures import GALLERY, all_pictures, digest, digest_in, png
from theory.claims import Record, all_claims
from theory.proof import inequalities

AGAIN = "run `python -m figures.account`"
TEXT = account.account()
SLOW = ("agreement", "load-thresholds", "combined-floor", "singletons")  # drawn once each


def test_the_committed_account_is_what_would_be_written_now():
    assert account.README.read_text() == TEXT, f"{account.README} is behind the registry: {AGAIN}"


@pytest.mark.parametrize("name", list(all_pictures()))
def test_a_picture_shows_the_numbers_of_the_theory(name):
    drawn = all_pictures()[name]({})
    path = GALLERY / f"theory-{name}.png"
    assert path.exists(), AGAIN
    assert digest_in(path.read_bytes()) == digest(drawn), f"{path} shows other numbers: {AGAIN}"
    if name not in SLOW:
        assert png(drawn) == png(all_pictures()[name]({}))


def test_every_claim_is_told_once_with_its_statement_and_code():
    for name, claim in all_claims().items():
        assert TEXT.count(f"\n### {name}. ") == 1
        assert account._escaped(claim.statement) in TEXT
        assert f"({Path(account._file(type(claim))).name}#L" in TEXT


def test_every_section_has_a_picture_and_every_picture_a_section():
    shown = [name for section in account.SECTIONS for name in section.pictures]
    assert all(section.pictures for section in account.SECTIONS)
    assert sorted(shown) == sorted(all_pictures())
    known = set(all_claims())
    for drawable in all_pictures().values():
        assert set(drawable.claims) <= known


def test_links_lead_to_what_they_name():
    links = re.findall(r"\[`?([^\]]*?)`?\]\(([^)#]*)#(L\d+|[^)]*)\)", TEXT)
    assert len(links) > 150
    headings = {
        re.sub(r"[^\w\- ]", "", line[4:].lower()).replace(" ", "-")
        for line in TEXT.splitlines()
        if line.startswith("### ")
    }
    for words, file, place in links:
        if not file:
            assert place in headings, words
            continue
        line = (account.README.parent / file).read_text().splitlines()[int(place[1:]) - 1]
        name = words.split(".")[-1]
        assert f"def {name}" in line or line.startswith(("@", "class ", "def ")) or '"' in line, (words, line)


def test_what_papers_printed_wrongly_is_said():
    wrong = [
        one
        for claim in all_claims().values()
        if isinstance(claim, Record)
        for one in claim.published()
        if not one.agrees
    ]
    assert {one.printed for one in wrong} >= {2.0, 3.43e24}
    opening = TEXT.split("## 1.")[0]
    for one in wrong:
        assert f"| {account._number(one.printed)} | {account._number(one.recomputed)} |" in opening


def test_inequalities_belong_to_claims_that_are_told():
    assert set(inequalities()) <= set(all_claims())


def test_a_claim_of_no_section_is_told_all_the_same(monkeypatch):
    monkeypatch.setattr(account, "SECTIONS", account.SECTIONS[:-1])
    text = account.account()
    assert "Further claims" in text
    assert "\n### T26. " in text


def test_markdown_is_escaped():
    assert account._escaped("n* < |V_c| [a]") == r"n\* \< \|V\_c\| \[a\]"


def test_writing_twice_changes_nothing(tmp_path, monkeypatch):
    few = {"cost": all_pictures()["cost"]}
    monkeypatch.setattr(account, "all_pictures", lambda: few)
    monkeypatch.setattr(account, "account", lambda: "text")
    monkeypatch.setattr(account, "GALLERY", tmp_path / "gallery")
    monkeypatch.setattr(account, "README", tmp_path / "README.md")
    assert [path.name for path in account.write_account()] == ["theory-cost.png", "README.md"]
    assert account.write_account() == []


def test_recorded_searches_are_told(tmp_path, monkeypatch):
    record = tmp_path / "searches.jsonl"
    record.write_text(
        '{"claim": "T1", "passed": true, "examples": 100002}\n{"claim": "T2", "passed": false, "examples": 7}\n'
    )
    monkeypatch.setattr(account, "SEARCHES", record)
    assert account._searched() == {"T1": 100002}
    assert "searched 100,002 examples" in account.account()
