"""The study with real models, end to end against a local server that plays them, with all that goes wrong out there."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from sims.imagination import llm_client
from sims.imagination.llm_command import llm
from sims.imagination.llm_questions import Question, read_questions, write_questions
from sims.store import Store
from tests.sims.chat_server import KEY, TOKENS, said
from theory.console import Refusal

pytest.importorskip("openai")


class Players:
    """Two models. Questions: option 'true ...' is the answer. Answers: alpha knows it, beta takes 'false 1 ...'."""

    def __init__(self):
        self.made = Counter()
        self.lock = threading.Lock()

    def __call__(self, body, count):
        return 200, {}, said(self.text(body)), 0.0

    def text(self, body):
        prompts = [message["content"] for message in body["messages"] if message["role"] == "user"]
        asked = next(text for text in reversed(prompts) if "could not be used" not in text)
        if asked.startswith("Answer the following"):
            wanted = "true" if body["model"] == "alpha-7b" else "false 1"
            return json.dumps({"answer": re.search(rf"^([A-D])\. {wanted}", asked, re.MULTILINE)[1]})
        if "Write one paragraph" in asked:
            return "A paragraph about nothing."
        with self.lock:
            self.made[body["model"]] += 1
            name = f"{body['model']} {self.made[body['model']]}"
        options = {"A": f"false 1 {name}", "B": f"true {name}", "C": f"false 2 {name}", "D": f"false 3 {name}"}
        return json.dumps({"question": f"What of {name}?", "options": options, "answer": "B"})


def models_toml(url, **changes):
    settings = {"api_key_env": "PLAYED_KEY", "input_price": 1.0, "output_price": 10.0, "concurrency": 3,
                "timeout_seconds": 5.0, "retries": 4, "first_wait_seconds": 0.01}  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}" for name, value in (settings | changes).items()]
    tables = [
        f'[[model]]\nname = "{name}"\nfamily = "{name}s"\nbase_url = "{url}"\nmodel = "{model}"\n' + "\n".join(lines)
        for name, model in (("alpha", "alpha-7b"), ("beta", "beta-9b"))
    ]
    return "\n".join(tables) + "\n"


def run(tmp_path, server, *flags, **changes):
    file = tmp_path / "models.toml"
    file.write_text(models_toml(server.url, **changes))
    return CliRunner().invoke(llm, ["--models", str(file), "--out", str(tmp_path / "out"), *map(str, flags)])


SMALL = ("--topics", "physics,law", "--per-topic", "2", "--quiet")  # 16 questions, 32 answers
REQUESTS = 8 + 8 * 2 + 32
COST = REQUESTS * (TOKENS[0] * 1.0 + TOKENS[1] * 10.0) / 1e6


def means_of(tmp_path):
    return pd.read_csv(tmp_path / "out" / "llm_matrix.csv").set_index(["kind", "question_model", "answer_model"])


def assert_key_nowhere(tmp_path, result):
    texts = [result.output, result.stderr, str(result.exception), repr(result.exception)]
    assert not any(KEY in text for text in texts)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path


def test_the_whole_study(tmp_path, serve):
    server = serve(Players())
    result = run(tmp_path, server, *SMALL)
    assert result.exit_code == 0, result.exception
    table = means_of(tmp_path)
    assert table.shape[0] == 2 * 2 * 2
    for kind in ("direct", "context"):
        for inventor in ("alpha", "beta"):
            for name, correctness in (("alpha", 1.0), ("beta", 0.0)):
                cell = table.loc[kind, inventor, name]
                assert (cell.asked, cell.answered, cell.answer_rate, cell.correctness) == (4, 4, 1.0, correctness)
                assert cell.relation == ("self" if inventor == name else "cross_family")
    assert f"{REQUESTS} replies, cost {COST:.4f}" in result.output
    assert len(server.requests) == REQUESTS
    assert re.search(r"alpha +100\.0 % +0\.0 %", result.output)

    # What was asked: temperatures by role, the paragraph in the second request of a context question and nowhere else,
    # nobody's account but the key.
    bodies = [body for _, _, body in server.requests]
    answers = [body for body in bodies if "Answer the following" in body["messages"][0]["content"]]
    assert {body["temperature"] for body in answers} == {0.0}
    assert {body["temperature"] for body in bodies if body not in answers} == {1.0}
    assert sum("A paragraph about nothing." in json.dumps(body) for body in bodies) == 8
    assert not any("A paragraph" in json.dumps(body) for body in answers)
    for _, headers, _ in server.requests:
        assert headers["authorization"] == f"Bearer {KEY}"
        assert "organization-of-somebody" not in headers.values()

    # The options are not shown in the order of the question model, and the answers count in that order.
    shown = [re.findall(r"^[A-D]\. (true|false \d)", body["messages"][0]["content"], re.MULTILINE) for body in answers]
    assert len({tuple(order) for order in shown}) > 4
    rows = pd.read_csv(tmp_path / "out" / "llm_answers.csv")
    assert set(zip(rows.answer_model, rows.chosen, rows.right, strict=True)) == {("alpha", 1, 1), ("beta", 0, 0)}
    pairs = pd.read_csv(tmp_path / "out" / "llm_pairs.csv")
    assert (
        pairs[["first", "second", "answered_by_both", "agreement"]].to_numpy().tolist()
        == [["alpha", "beta", 8, 0.0]] * 2
    )
    assert_key_nowhere(tmp_path, result)

    # Again: nothing is asked, the same comes out. With other names of the models too.
    again = run(tmp_path, server, *SMALL, "--json")
    assert len(server.requests) == REQUESTS
    document = json.loads(again.stdout)
    assert document["this_run"] == {"requests": 0, "cost": 0.0}
    assert sum(account["cost"] for account in document["accounts"]) == pytest.approx(COST)
    assert document["accounts"][0]["outcomes"] == {"answered (answer)": 16, "invented (question)": 8}
    assert {row["relation"]: row["correctness"] for row in document["means"] if row["kind"] == "direct"} == {
        "self": 0.5, "cross_family": 0.5, "all": 0.5,
    }  # fmt: skip
    assert sum(document["positions"][0][letter] for letter in "ABCD") == pytest.approx(1.0)

    # Its questions, read from the file, meet the answers that are stored.
    questions = tmp_path / "out" / "llm_questions.jsonl"
    assert len(read_questions(questions).questions) == 16
    assert run(tmp_path, server, "--quiet", "--questions", questions).exit_code == 0
    assert len(server.requests) == REQUESTS
    one = run(
        tmp_path, server, "--questions", questions, "--topics", "law", "--per-topic", "1", "--json", "--seed", "1"
    )
    assert sum(row["asked"] for row in json.loads(one.stdout)["cells"]) == 8
    assert len(server.requests) == REQUESTS + 8  # another seed is another shuffle, asked anew

    # --fresh forgets what it would reuse, and nothing else.
    with Store(tmp_path / "out" / "runs.sqlite") as store:
        assert len(store) == 16 + 32 + 8
    assert run(tmp_path, server, *SMALL, "--fresh").exit_code == 0
    assert len(server.requests) == 2 * REQUESTS + 8
    with Store(tmp_path / "out" / "runs.sqlite") as store:
        assert len(store) == 16 + 32 + 8


def test_what_endpoints_do_on_bad_days_changes_nothing(tmp_path, serve):
    """Every request may fail at first: 429 with and without Retry-After, 500, no JSON, no choice, silence, a cut."""
    players, tried, lock = Players(), Counter(), threading.Lock()
    weather = [
        (429, {"Retry-After": "0.05"}, {"error": {"message": f"slow down, {KEY}", "code": "rate_limit_exceeded"}}, 0),
        (500, {}, b"<html>oops</html>", 0),
        (200, {}, b'{"choices": [', 0),
        (200, {}, {"id": "1", "choices": []}, 0),
        (503, {}, {"error": None}, 0),
        (200, {}, said("late"), 0.8),
        (429, {}, {"error": "plain text"}, 0),
    ]

    def play(body, count):
        with lock:
            number = list(tried).index(known) if (known := json.dumps(body)) in tried else len(tried)
            tried[known] += 1
            first = tried[known] == 1
        return weather[number % 7] if first and number % 2 == 0 else players(body, count)

    server = serve(play)
    result = run(tmp_path, server, *SMALL, timeout_seconds=0.4)
    assert result.exit_code == 0, result.exception
    table = means_of(tmp_path)
    assert table["asked"].eq(4).all()
    assert table["answered"].eq(4).all()
    assert table["correctness"].tolist() == [1.0, 0.0] * 4
    assert len(server.requests) > REQUESTS + 15
    assert f"{REQUESTS} replies, cost {COST:.4f}" in result.output
    assert_key_nowhere(tmp_path, result)


def test_what_models_say_is_recorded_as_what_it_is(tmp_path, serve):
    """Refusals, malformed replies, duplicate options: repaired once, recorded, counted; correctness is of answers."""
    players = Players()
    duplicate = json.dumps({"question": "?", "options": dict.fromkeys("ABCD", "same"), "answer": "A"})

    def play(body, count):
        text, model = players.text(body), body["model"]
        first, repair = body["messages"][0]["content"], len(body["messages"]) > 1
        if "Invent a concept of law" in first and "Write one paragraph" not in first:
            if model == "alpha-7b":  # direct, on law: twice duplicate options
                return 200, {}, said(duplicate), 0
            if not repair:  # and for beta only at first
                return 200, {}, said(duplicate), 0
        if "Write one paragraph" in first and "law" in first and model == "beta-9b":
            return 200, {}, said("I'm sorry, but I cannot help with that."), 0
        if first.startswith("Answer"):
            if model == "alpha-7b" and "beta" in first:  # declines, by the three ways of models and endpoints
                number = int(re.search(r"What of beta-9b (\d+)\?", first)[1])
                filtered = {"error": {"message": f"no {KEY}", "code": "content_filter"}}
                message = {"role": "assistant", "content": None, "refusal": f"no {KEY}"}
                refusing = said("") | {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
                replies = [
                    (200, said('{"answer": null}')),
                    (200, said("I can't know.")),
                    (400, filtered),
                    (200, refusing),
                ]
                status, reply = replies[number % 4]
                return status, {}, reply, 0
            if model == "beta-9b" and not repair:  # prose first, JSON after the repair
                return 200, {}, said(f"It is B, says {KEY}"), 0
        return 200, {}, said(text), 0

    server = serve(play)
    result = run(tmp_path, server, *SMALL, "--json")
    assert result.exit_code == 0, result.exception
    accounts = {account["model"]: account["outcomes"] for account in json.loads(result.stdout)["accounts"]}
    assert accounts["alpha"]["malformed (question)"] == 2
    assert accounts["alpha"]["invented (question)"] == 6
    assert accounts["beta"] == {"invented (question)": 6, "refused (question)": 2, "answered (answer)": 12}
    asked_of_alpha = {name: count for name, count in accounts["alpha"].items() if "answer)" in name}
    assert asked_of_alpha["answered (answer)"] == 6
    assert asked_of_alpha.keys() >= {"declined (answer)", "refused (answer)"}
    assert sum(asked_of_alpha.values()) == 12
    table = means_of(tmp_path)
    assert table.loc["direct", "beta", "alpha"].answered == 0
    assert np.isnan(table.loc["direct", "beta", "alpha"].correctness)
    assert table.loc["direct", "beta", "alpha"].answer_rate == 0.0
    assert table.loc["direct", "alpha", "beta"].answer_rate == 1.0  # each after one repair
    repairs = [body["messages"][-1]["content"] for _, _, body in server.requests if len(body["messages"]) > 2]
    assert any("Options A and B say the same." in text for text in repairs)
    assert any("It is not one JSON object" in text for text in repairs)
    assert_key_nowhere(tmp_path, result)


def test_a_killed_run_loses_only_what_was_in_flight(tmp_path, serve):
    players = Players()

    def play(body, count):
        return 200, {}, said(players.text(body)), 0.02

    server = serve(play)
    file = tmp_path / "models.toml"
    file.write_text(models_toml(server.url))
    code = """
        import sys
        from sims.imagination.llm_command import llm
        assert "openai" not in sys.modules and "jax" not in sys.modules  # --help needs neither
        llm()
    """
    arguments = [
        sys.executable,
        "-c",
        textwrap.dedent(code),
        "--models",
        str(file),
        "--out",
        str(tmp_path / "out"),
        *SMALL,
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ)
    until = time.monotonic() + 90
    while server.answered < REQUESTS // 2 and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=10)
    before, in_flight_at_most = len(server.requests), 2 * 3
    assert REQUESTS // 2 <= before < REQUESTS, output
    result = run(tmp_path, server, *SMALL)
    assert result.exit_code == 0, result.exception
    # A context question takes two requests: each worker may have lost both.
    assert REQUESTS <= len(server.requests) <= REQUESTS + 2 * in_flight_at_most
    assert means_of(tmp_path)["correctness"].tolist() == [1.0, 0.0] * 4


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_requests_are_in_flight_than_allowed_and_as_many_as_that(tmp_path, serve, concurrency):
    players, full = Players(), {"alpha-7b": threading.Event(), "beta-9b": threading.Event()}

    def play(body, count):
        event = full[body["model"]]
        if server.in_flight[body["model"]] >= concurrency and not event.is_set():
            time.sleep(0.1)  # time for one too many to come
            event.set()
        assert event.wait(20)
        return 200, {}, said(players.text(body)), 0.0

    server = serve(play)
    flags = ("--kinds", "direct", "--topics", "law", "--per-topic", "5", "--quiet", "--concurrency", concurrency)
    assert run(tmp_path, server, *flags, timeout_seconds=30.0).exit_code == 0
    assert server.most_in_flight == {"alpha-7b": concurrency, "beta-9b": concurrency}


def test_a_model_whose_key_is_refused_is_left_alone_and_the_others_go_on(tmp_path, serve):
    players = Players()
    refused = {"error": {"message": f"Incorrect API key provided: {KEY}."}}
    server = serve(lambda body, count: (401, {}, refused, 0) if body["model"] == "beta-9b" else players(body, count))
    result = run(tmp_path, server, *SMALL)
    assert isinstance(result.exception, Refusal)
    # 8 questions of beta, and its answers to the 8 of alpha.
    assert "16 questions or answers got no reply" in str(result.exception)
    assert "model beta: Error code: 401" in str(result.exception)
    assert sum(body["model"] == "beta-9b" for _, _, body in server.requests) <= 2 * 3
    table = means_of(tmp_path)
    assert table.loc["direct", "alpha", "alpha"].correctness == 1.0
    assert table.loc["direct", "alpha", "beta"].asked == 0
    assert_key_nowhere(tmp_path, result)
    server.play = players  # the account is in order again: only the rest is asked
    assert run(tmp_path, server, *SMALL).exit_code == 0
    assert means_of(tmp_path)["correctness"].tolist() == [1.0, 0.0] * 4


def test_a_plan_asks_nothing_writes_nothing_and_needs_no_key(tmp_path, serve, monkeypatch):
    monkeypatch.delenv("PLAYED_KEY")
    server = serve(Players())
    document = json.loads(run(tmp_path, server, *SMALL, "--plan", "--json").stdout)
    assert sum(row["questions_missing"] for row in document["models"]) == 16
    assert sum(row["answers_missing"] for row in document["models"]) == 32
    assert sum(row["requests"] for row in document["models"]) == REQUESTS
    assert all(0 < row["cost"] < row["cost_at_most"] for row in document["models"])
    text = run(tmp_path, server, *SMALL, "--plan").output
    assert "alpha needs a key in PLAYED_KEY, which is not set" in text
    assert f"In all about {REQUESTS} requests" in text
    assert not server.requests
    assert not (tmp_path / "out").exists()
    result = run(tmp_path, server, *SMALL)
    assert "PLAYED_KEY is not set" in str(result.exception)
    assert not server.requests


def test_a_plan_counts_what_is_stored(tmp_path, serve):
    server = serve(Players())
    assert run(tmp_path, server, "--kinds", "direct", "--topics", "law", "--per-topic", "2", "--quiet").exit_code == 0
    document = json.loads(run(tmp_path, server, *SMALL, "--plan", "--json").stdout)
    assert [row["questions_missing"] for row in document["models"]] == [6, 6]
    assert [row["answers_missing"] for row in document["models"]] == [12, 12]


def test_a_budget_is_refused_beforehand_or_kept(tmp_path, serve):
    server = serve(Players())
    result = run(tmp_path, server, *SMALL, "--budget", "0.001")
    assert "the study is expected to cost" in str(result.exception)
    assert not server.requests
    # Expected cost below the budget, the most that it may cost above: it stops where the next might be too much.
    result = run(tmp_path, server, *SMALL, "--budget", "0.07", max_tokens=6500)
    assert isinstance(result.exception, Refusal)
    assert "--budget 0.07: reached" in str(result.exception)
    spent = float(re.search(r"replies, cost ([\d.]+)", result.output)[1])
    assert 0 < spent <= 0.07
    assert spent == pytest.approx(server.answered * 200e-6, abs=1e-4)
    with Store(tmp_path / "out" / "runs.sqlite") as store:
        assert 0 < len(store) <= server.answered


def test_questions_of_unknown_family_are_told(tmp_path, serve):
    server = serve(Players())
    question = Question("direct", "law", "stranger", "What?", ("true", "false 1", "false 2", "false 3"), 0)
    write_questions(tmp_path / "given.jsonl", [question])
    document = json.loads(run(tmp_path, server, "--questions", tmp_path / "given.jsonl", "--json").stdout)
    assert [cell["relation"] for cell in document["cells"]] == ["unknown", "unknown"]
    assert any("no family is known of stranger" in note for note in document["notes"])
    assert [cell["correctness"] for cell in document["cells"]] == [1.0, 0.0]


def test_without_the_client_library_the_extra_is_named(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(llm_client.importlib.util, "find_spec", lambda name: None)
    result = run(tmp_path, serve(Players()), *SMALL)
    assert isinstance(result.exception, Refusal)
    assert "extra `llm`" in str(result.exception)
