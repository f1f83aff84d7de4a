"""Token arrays: nothing lost, nothing cut, exactly the answer and its end marked."""

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sims.tokens import (
    BYTES,
    ByteVocabulary,
    SymbolVocabulary,
    Vocabulary,
    WordVocabulary,
    prompts_of,
    split_words,
    tokenize,
    tokenize_symbols,
)
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
    ask = arrays.vocabulary.prompt("")[-1]
    specials = (ask, arrays.end, arrays.pad)
    assert sorted(specials) == [arrays.size - 3, arrays.size - 2, arrays.size - 1]
    for row, mask, question, answer in zip(arrays.tokens, arrays.answer_mask, questions, answers, strict=True):
        asked = row.tolist().index(ask)
        assert arrays.vocabulary.decode(row[:asked]) == question
        marked = row[mask]
        assert marked[-1] == arrays.end
        assert not np.isin(marked[:-1], specials).any()
        assert arrays.vocabulary.decode(marked) == answer
        end = asked + marked.size
        assert mask.nonzero()[0].tolist() == list(range(asked + 1, end + 1))  # one run, right after ASK
        assert (row[end + 1 :] == arrays.pad).all()
    assert arrays.prompt_lengths.tolist() == [len(arrays.vocabulary.prompt(question)) for question in questions]
    assert arrays.lengths.tolist() == (arrays.tokens != arrays.pad).sum(axis=1).tolist()
    assert arrays.answer_lengths.tolist() == [len(arrays.vocabulary.answer_ids("", answer)) + 1 for answer in answers]
    unseen = arrays.unseen[0]
    assert unseen[arrays.unseen_lengths[0] - 1] == ask
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
    assert row.count(arrays.size - 4) == 1
    assert (arrays.tokens != arrays.size - 4).all()


def test_long_facts_are_refused_with_their_number_and_line():
    questions, answers = ["q", "q" * 9, "q" * 12], ["a", "a", "a"]
    assert tokenize(questions, answers, longest=15).tokens.shape == (3, 15)
    with pytest.raises(Refusal, match=r"2 of 3 facts have more than 10 tokens \(bytes\), the first at line 4; .* 15:"):
        tokenize(questions, answers, longest=10, lines=[2, 7, 4])
    with pytest.raises(Refusal, match="1 of 2 facts"):
        tokenize(["q"], ["a"], unseen=["q" * 40], longest=20)


def test_refusals_name_the_file_and_no_remedy_that_is_not_there():
    facts = {"longest": 10, "lines": [2], "source": "facts.csv"}
    for vocabulary, remedy in [("bytes", "shorten them, or use words in place of bytes"), (BYTES, "shorten them")]:
        with pytest.raises(Refusal, match=rf"^facts.csv: 1 of 1 facts have more .*the longest has 14: {remedy}$"):
            tokenize(["q" * 9], ["xyz"], vocabulary, **facts)
    with pytest.raises(Refusal, match=r"^facts.csv: 1 answers cannot be written exactly .* at line 2: leave them out"):
        tokenize(["q"], ["5 $"], Sentences(), **facts | {"longest": 20})


def test_symbols():
    vocabulary = SymbolVocabulary(answers=5, questions=3)
    arrays = tokenize_symbols(np.array([[0, 2]]), np.array([[4]]), np.array([[1, 1]]), vocabulary)
    assert arrays.tokens.tolist() == [[5, 7, 8, 4, 9]]
    assert arrays.answer_mask.tolist() == [[False, False, False, True, True]]
    assert arrays.unseen.tolist() == [[6, 6, 8, 10, 10]]
    assert vocabulary.encode(vocabulary.decode(arrays.tokens[0])) == [5, 7, 4]


class Sentences(Vocabulary):
    """As a checkpoint has it: no ids to spare, END is one that pads too, two letters may be one token."""

    size, end, pad = 300, 299, 299

    def prompt(self, question: str) -> Sequence[int]:
        """A sentence that ends before the answer."""
        return f"Q: {question}\nA:".encode()

    def answer_ids(self, question: str, answer: str) -> Sequence[int]:
        """A blank before it, "an" one token; "$" is END itself, as a tokenizer may take it."""
        return [{0: 256, ord("$"): 299}.get(byte, byte) for byte in f" {answer}".replace("an", "\0").encode()]

    def spell(self, tokens: Iterable[int]) -> bytes:
        """Without the blank."""
        return b"".join(b"an" if token == 256 else bytes([token]) for token in tokens if token < 257)[1:]


def test_a_vocabulary_of_another_model_lays_out_facts_in_its_own_way():
    vocabulary = Sentences()
    arrays = tokenize(["who?", "what?"], ["Anna Banana", "nn"], vocabulary, unseen=["why?"])
    assert arrays.prompt_lengths.tolist() == [len("Q: who?\nA:"), len("Q: what?\nA:")]
    assert arrays.answer_lengths.tolist() == [11, 4]  # a blank, two of the letters twice in one token, END
    assert arrays.lengths.tolist() == [21, 15]
    for row, mask, answer in zip(arrays.tokens, arrays.answer_mask, ["Anna Banana", "nn"], strict=True):
        assert row[mask][-1] == vocabulary.end
        assert vocabulary.decode(row[mask].tolist()) == answer
        assert (row[mask.nonzero()[0][-1] :] == vocabulary.pad).all()
    tokens, lengths = prompts_of(vocabulary, ["why?", "for what?"])
    assert arrays.unseen[0, : lengths[0]].tolist() == tokens[0, : lengths[0]].tolist() == list(b"Q: why?\nA:")
    assert lengths.tolist() == [10, 15]


def test_an_answer_that_the_tokens_do_not_say_is_refused():
    with pytest.raises(Refusal, match=r"1 answers cannot be written exactly .* at line 8"):
        tokenize(["a", "b"], ["5 dollars", "5 $"], Sentences(), lines=[3, 8])
