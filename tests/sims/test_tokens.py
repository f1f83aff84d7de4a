"""Token arrays: nothing lost, nothing cut, exactly the answer and its end marked."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.tokens import ByteVocabulary, SymbolVocabulary, WordVocabulary, split_words, tokenize, tokenize_symbols
from theory.console import Refusal

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(texts)
@example(" a  b. \n")
@example("\u00a0")
@example("e\u0301!?_x")
def test_words_and_bytes_spell_the_text(text):
    assert "".join(split_words(text)) == text
    for vocabulary in (ByteVocabulary(), WordVocabulary.of([text])):
        tokens = vocabulary.encode(text)
        assert all(0 <= token < vocabulary.content for token in tokens)
        assert vocabulary.decode(tokens) == text


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.sampled_from(["bytes", "words"]))
def test_layout(facts, kind):
    questions, answers = zip(*facts, strict=True)
    arrays = tokenize(questions, answers, kind, unseen=questions[:1])
    specials = (arrays.ask, arrays.end, arrays.pad)
    assert sorted(specials) == [arrays.size - 3, arrays.size - 2, arrays.size - 1]
    for row, mask, question, answer in zip(arrays.tokens, arrays.answer_mask, questions, answers, strict=True):
        ask = row.tolist().index(arrays.ask)
        assert arrays.vocabulary.decode(row[:ask]) == question
        marked = row[mask]
        assert marked[-1] == arrays.end
        assert not np.isin(marked[:-1], specials).any()
        assert arrays.vocabulary.decode(marked) == answer
        end = ask + marked.size
        assert mask.nonzero()[0].tolist() == list(range(ask + 1, end + 1))  # one run, right after ASK
        assert (row[end + 1 :] == arrays.pad).all()
    assert arrays.answer_lengths.tolist() == [len(arrays.vocabulary.encode(answer)) + 1 for answer in answers]
    unseen = arrays.unseen[0]
    assert unseen[arrays.unseen_lengths[0] - 1] == arrays.ask
    assert arrays.vocabulary.decode(unseen) == questions[0]
    assert (unseen[arrays.unseen_lengths[0] :] == arrays.pad).all()


def test_an_answer_that_begins_another_is_told_apart_by_its_end():
    arrays = tokenize(["q1?", "q2?"], ["New York", "New York City"], "words")
    short, long = (row[mask].tolist() for row, mask in zip(arrays.tokens, arrays.answer_mask, strict=True))
    assert long[: len(short) - 1] == short[:-1]
    assert long[: len(short)] != short


def test_unknown_words_have_a_token_of_their_own():
    arrays = tokenize(["where is Rome?"], ["Italy"], "words", unseen=["where is Ulm?"])
    row = arrays.unseen[0].tolist()
    assert arrays.vocabulary.decode(row) == "where is\ufffd?"
    assert row.count(arrays.vocabulary.content - 1) == 1
    assert (arrays.tokens != arrays.vocabulary.content - 1).all()


def test_long_facts_are_refused_with_their_number_and_line():
    questions, answers = ["q", "q" * 9, "q" * 12], ["a", "a", "a"]
    assert tokenize(questions, answers, longest=15).tokens.shape == (3, 15)
    with pytest.raises(Refusal, match=r"2 of 3 facts have more than 10 tokens \(bytes\), the first at line 4; .* 15:"):
        tokenize(questions, answers, longest=10, lines=[2, 7, 4])
    with pytest.raises(Refusal, match="1 of 2 facts"):
        tokenize(["q"], ["a"], unseen=["q" * 40], longest=20)


def test_symbols():
    vocabulary = SymbolVocabulary(answers=5, questions=3)
    arrays = tokenize_symbols(np.array([[0, 2]]), np.array([[4]]), np.array([[1, 1]]), vocabulary)
    assert arrays.tokens.tolist() == [[5, 7, 8, 4, 9]]
    assert arrays.answer_mask.tolist() == [[False, False, False, True, True]]
    assert arrays.unseen.tolist() == [[6, 6, 8, 10, 10]]
    assert vocabulary.encode(vocabulary.decode(arrays.tokens[0])) == [5, 7, 4]
