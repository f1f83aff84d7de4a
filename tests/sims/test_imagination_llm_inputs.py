"""What a study with real models is given: models file, templates, replies, question files. Nothing is asked here."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sims.imagination.llm_client import redacted, retry_after_seconds, wait_seconds
from sims.imagination.llm_models import Model, read_models
from sims.imagination.llm_parsing import LETTERS, Malformed, is_refusal, options_problem, parse_answer, parse_question
from sims.imagination.llm_prompts import PLACEHOLDERS, read_prompts
from sims.imagination.llm_questions import Question, field_mapping, read_questions, write_questions
from theory.console import Refusal

MODEL = '[[model]]\nname = "a"\nfamily = "f"\nbase_url = "http://localhost:1/v1"\nmodel = "m"\n'
TWO = MODEL + "\n" + MODEL.replace('"a"', '"b"').replace('"m"', '"n"')


def _models(tmp_path, text):
    path = tmp_path / "models.toml"
    path.write_text(text)
    return read_models(path)


def test_a_models_file_is_read_with_its_defaults(tmp_path):
    more = 'roles = ["answer"]\nquestion_temperature = "default"\ninput_price = 2\n[families]\nother = "g"\n'
    models = _models(tmp_path, TWO + more)
    assert [model.name for model in models.of("question")] == ["a"]
    assert [model.name for model in models.of("answer")] == ["a", "b"]
    assert (models.family("b"), models.family("other"), models.family("nobody")) == ("f", "g", None)
    assert (models.models[1].question_temperature, models.models[1].input_price) == (None, 2.0)
    assert models.models[0] == Model("a", "f", "http://localhost:1/v1", "m")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TWO + "api_key = 1\n", "line 12: unknown key 'api_key'; the keys are answer_temperature, api_key_env, "),
        (
            MODEL + 'api_key_env = "sk-this is a key"\n',
            "line 6: api_key_env must be the name, in capitals, of an environment",
        ),
        (MODEL + "[other]\n", "line 6: unknown key 'other'"),
        (MODEL.replace('family = "f"\n', ""), "model 1 lacks the key 'family'"),
        (MODEL.replace("http://localhost", "http://user:secret@localhost"), "line 4: base_url must not hold a user"),
        (MODEL.replace("http:", "ftp:"), "base_url must be an address"),
        (MODEL + "input_price = -1\n", "line 6: input_price must be a finite number of at least 0"),
        (MODEL + "input_price = nan\n", "input_price must be a finite number"),
        (MODEL + "max_tokens = true\n", "max_tokens must be a whole number of at least 1"),
        (MODEL + "answer_temperature = 3\n", "answer_temperature must be a number from 0 to 2"),
        (MODEL + "roles = []\n", "roles must be a list"),
        (MODEL + 'token_field = "n"\n', "token_field must be one of"),
        (MODEL + MODEL, "two models are called 'a'"),
        (MODEL + MODEL.replace('"a"', '"b"'), "'b' and 'a' are the same model of the same endpoint"),
        ("", "holds no model"),
        ("[[model]\n", "not TOML"),
    ],
)
def test_a_models_file_that_is_not_as_described_is_refused(tmp_path, text, words):
    with pytest.raises(Refusal, match=words):
        _models(tmp_path, text)


@pytest.mark.parametrize(
    ("key", "words"),
    [(None, "KEY_OF_A is not set"), ("short", "fewer than 8 characters"), ("long-secret key", "holds a space")],
)
def test_a_key_that_cannot_be_one_is_refused_without_being_shown(monkeypatch, key, words):
    if key is not None:
        monkeypatch.setenv("KEY_OF_A", key)
    with pytest.raises(Refusal, match=words) as refused:
        Model("a", "f", "http://localhost:1", "m", api_key_env="KEY_OF_A").api_key()
    assert key is None or key not in str(refused.value)


def test_templates_may_be_replaced_one_by_one(tmp_path):
    (tmp_path / "answer.txt").write_text("$question costs $$5\n$options")
    prompts = read_prompts(tmp_path)
    assert prompts.filled("answer", question="Q with $options?", options="A. b") == "Q with $options? costs $5\nA. b"
    assert prompts.texts["repair"] == read_prompts().texts["repair"]
    assert prompts.fingerprint("answer") != read_prompts().fingerprint("answer")
    assert prompts.fingerprint("repair") == read_prompts().fingerprint("repair")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("answer", "$question", r"lacks the placeholder \$options"),
        ("answer", "$question $options $topic", r"unknown placeholder \$topic; it knows \$options, \$question"),
        ("repair", "$error\n5 $ more", "line 2: a dollar sign without a word"),
        ("answers", "$question $options", r"not a template; their names are direct_question\.txt"),
    ],
)
def test_a_template_that_could_not_be_filled_is_refused(tmp_path, name, text, words):
    (tmp_path / f"{name}.txt").write_text(text)
    with pytest.raises(Refusal, match=words):
        read_prompts(tmp_path)


def test_every_packaged_template_has_exactly_its_placeholders(tmp_path):
    for name, text in read_prompts().texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    assert set(read_prompts(tmp_path).texts) == set(PLACEHOLDERS)


def _reply(**changes):
    options = {letter: f"option {letter}" for letter in LETTERS}
    return json.dumps({"question": "Q?", "options": options, "answer": "D"} | changes)


@pytest.mark.parametrize("around", ["{}", " \n{}\n", "```json\n{}\n```", "```\n{}\n```", "<think>{{?}}</think>\n{}"])
def test_a_question_is_read_with_what_models_put_around_it(around):
    invented = parse_question(around.format(_reply()))
    assert (invented.correct, invented.options[3]) == (3, "option D")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Sure! " + _reply(), "not one JSON object"),
        (_reply() + _reply(), "not one JSON object"),
        ("[1]", "not an object"),
        (_reply(answer="E"), "must be one of the letters"),
        (_reply(answer=["A"]), "must be one of the letters"),
        (_reply(question=" "), "must be a text that is not empty"),
        (_reply(note="x"), "keys must be answer, options, question, not answer, note"),
        (_reply(options=["a", "b", "c", "d"]), "must be an object with the keys"),
        (_reply(options=dict(zip("ABCD", ["x", "y", "z", "Ｘ. "], strict=True))), "Options A and D say the same"),
        (_reply(options=dict(zip("ABCD", ["x", "y", "z", ""], strict=True))), "Every option must be a text"),
        (_reply(question="\ud800"), "surrogate"),
        ('{"answer": "A", "answer": "B"}', "twice"),
        ("[" * 100_000, "not one JSON object"),
    ],
)
def test_a_reply_that_is_not_a_question_says_why(text, words):
    with pytest.raises(Malformed, match=words):
        parse_question(text)


@pytest.mark.parametrize("text", ["B", '{"answer": "b"}', '{"answer": 1}', '{"answer": "B", "why": "x"}', "{}", ""])
def test_an_answer_is_not_guessed(text):
    with pytest.raises(Malformed):
        parse_answer(text)


@given(st.text(max_size=200))
def test_any_text_is_an_answer_or_malformed(text):
    try:
        assert parse_answer(text) in (None, 0, 1, 2, 3)
    except Malformed:
        assert text.strip() not in [f'{{"answer": "{letter}"}}' for letter in LETTERS]
    assert is_refusal(text) in (True, False)


@given(st.lists(st.text(max_size=3), min_size=4, max_size=4))
def test_options_that_have_no_problem_differ_in_more_than_case_and_spacing(options):
    if not options_problem(tuple(options)):
        assert len({" ".join(option.lower().split()) for option in options}) == 4
        assert options_problem((options[0].casefold() + " ", *options[1:3], options[0])) != ""


@pytest.mark.parametrize("letter", ["\u0390", "\u03b0", "\u1fd2", "\u1fe7", "\u00df", "\ufb03"])
def test_letters_that_case_takes_apart_are_still_one_option(letter):
    assert options_problem((letter.upper(), "x", "y", letter)) != ""


def _question(**changes):
    record = {"kind": "direct", "topic": "law", "question_model": "a", "question": "Q?",
              "options": ["w", "x", "y", "z"], "answer": 2}  # fmt: skip
    return record | changes


def _file(tmp_path, *records, name="direct_questions.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


@given(
    st.lists(
        st.builds(
            Question,
            st.sampled_from(["direct", "context"]),
            st.text(max_size=3),
            st.text(min_size=1, max_size=3).filter(str.strip),
            st.text(min_size=1).filter(str.strip),
            st.permutations(["w", "\u2028é", "C", '"']).map(tuple),
            st.integers(0, 3),
        ),
        min_size=1,
        unique=True,
    )
)
def test_written_questions_are_read_back_exactly(tmp_path_factory, questions):
    path = tmp_path_factory.mktemp("q") / "q.jsonl"
    write_questions(path, questions)
    assert read_questions(path).questions == tuple(questions)


@pytest.mark.parametrize("answer", [2, "C", "y"])
@pytest.mark.parametrize("options", [["w", "x", "y", "z"], dict(zip("ABCD", "wxyz", strict=True))])
def test_options_and_answer_may_be_written_in_several_ways(tmp_path, options, answer):
    (question,) = read_questions(_file(tmp_path, _question(options=options, answer=answer))).questions
    assert (question.options, question.correct) == (("w", "x", "y", "z"), 2)


def test_the_kind_is_the_files_name_and_other_fields_are_named(tmp_path):
    record = {name: value for name, value in _question(score=1).items() if name not in ("kind", "topic")}
    file = read_questions(_file(tmp_path, record, record, name="context_questions_creative.jsonl"))
    assert [(question.kind, question.topic) for question in file.questions] == [("context_creative", "")]
    assert any("field 'score' is let be" in note for note in file.notes)
    assert any("1 questions are there again" in note for note in file.notes)


def test_fields_of_other_names_are_mapped(tmp_path):
    record = {"qm": "a", "text": "Q?", "a": "w", "b": "x", "c": "y", "d": "z", "gold": "D"}
    mapping = field_mapping(["question_model=qm", "question=text", "options=a+b+c+d", "answer=gold"])
    file = read_questions(_file(tmp_path, record), mapping)
    assert file.questions == (Question("direct", "", "a", "Q?", ("w", "x", "y", "z"), 3),)
    assert file.notes == ()


def test_questions_with_options_that_say_the_same_are_set_aside(tmp_path):
    file = read_questions(_file(tmp_path, _question(), _question(options=["w", "W", "y", "z"])))
    assert len(file.questions) == 1
    assert any("1 questions with options that say the same set aside (line 2)" in note for note in file.notes)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {"question": "Q?"},
            r"line 2: no field 'question_model'; the line has question: .*--field question_model=NAME",
        ),
        (_question(options=["w", "x", "y"]), "line 2: There must be exactly 4 options, not 3"),
        (_question(options="wxyz"), "line 2: options must be a list"),
        (_question(options={"A": "w"}), "line 2: options must have the keys A, B, C and D, not A"),
        (_question(answer=4), "line 2: the answer 4 is no index"),
        (_question(answer=True), "line 2: the answer True is no index"),
        (_question(options=["B", "A", "y", "z"], answer="A"), "the letter of one option and the text of another"),
        (_question(question=""), "line 2: 'question' must be a text"),
        ([1], "line 2: JSON, but not an object"),
    ],
)
def test_a_question_file_that_is_not_as_described_is_refused_by_line(tmp_path, record, words):
    with pytest.raises(Refusal, match=words):
        read_questions(_file(tmp_path, _question(), record))


@pytest.mark.parametrize("pair", ["options", "options=", "choices=options"])
def test_a_mapping_that_maps_nothing_is_refused(pair):
    with pytest.raises(Refusal, match="give OURS=THEIRS"):
        field_mapping([pair])


def test_the_order_of_options_is_seeded_and_even():
    questions = [Question("direct", "law", "a", f"Q{n}?", ("w", "x", "y", "z"), 0) for n in range(2000)]
    orders = [question.order(7) for question in questions]
    assert orders == [question.order(7) for question in questions]
    assert sum(order == question.order(8) for order, question in zip(orders, questions, strict=True)) < 200
    places = [order.index(0) for order in orders]
    for place in range(4):  # 500 expected, standard deviation 19
        assert abs(places.count(place) - 500) < 100


@given(st.text(max_size=12), st.text(max_size=12), st.text("abcdef", min_size=8, max_size=20))
def test_no_eight_characters_of_a_key_are_left(before, after, key):
    clean = redacted(f"{before}{key}{after}{key[:9]}{key[1:]}", key)
    assert not any(key[start : start + 8] in clean for start in range(len(key) - 7))
    assert redacted(before, key) == before or any(key[start : start + 8] in before for start in range(len(key) - 7))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:10 GMT"}, 0.0),
    ],
)
def test_retry_after_is_read_in_all_its_forms(headers, seconds):
    assert retry_after_seconds(headers, now=40.0) == seconds


def test_waits_double_up_to_a_longest_and_differ():
    model = Model("a", "f", "http://localhost:1", "m", first_wait_seconds=2.0)
    assert [wait_seconds(model, failures, None, 1.0) for failures in (1, 2, 3, 9)] == [2.0, 4.0, 8.0, 60.0]
    assert [wait_seconds(model, failures, None, 0.0) for failures in (1, 9)] == [1.0, 30.0]
    assert wait_seconds(model, 1, 7.0, 0.5) == 8.0  # never less than what the endpoint asks for
