"""A memory beside a checkpoint: exact as beside a backbone of its own, and bound to the weights it was made with."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import AddedToken

from sims.checkpoints.checkpoint import read_checkpoint
from sims.experiments.randomization_material import from_folder
from sims.memory import memorizing
from sims.memory.decoding import greedy
from sims.memory.folder import Folder, Settings
from sims.memory.memory import Memory
from sims.memory.model import given_model
from sims.memory.recall import effect
from sims.memory.saved import bank_values
from sims.tokens import prompts_of
from tests.sims.checkpoint_making import byte_tokenizer, tiny_checkpoint, write_weights
from tests.sims.memory_making import assert_all_right, contents, facts_of, mome, written
from theory.console import REFUSED, Refusal

PLAIN = [(f"who leads group {number}?", f"Parthis {number * 37 % 101}") for number in range(12)]
AWKWARD = [
    ('Comma, "quotes"?', 'He said "no", twice'),
    ("A line\nbreak?", "first\nsecond"),
    ("\u0645\u0627 \u0639\u0627\u0635\u0645\u0629?", "\u0627\u0644\u0642"),
    ("Blank around?", "  a \t"),
    ("Special words?", "<end> and <begin>"),  # text, not the tokens of that name
    ("Replacement?", "\ufffd\ufffd"),
]
FACTS = PLAIN + AWKWARD
SMALL = {"num_hidden_layers": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny", "llama", **SMALL)


@pytest.fixture(scope="module")
def facts(checkpoint) -> Path:
    return written(checkpoint.parent / "facts.csv", FACTS)


@pytest.fixture(scope="module")
def stored(checkpoint, facts) -> Path:
    folder = checkpoint.parent / "memory"
    result = mome("memorize", facts, "--out", folder, "--backbone", checkpoint, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.output)
    assert (report["stored"], report["facts"]) == (len(FACTS), len(FACTS))
    assert report["checkpoint"]["folder"] == str(checkpoint)
    return folder


def test_every_fact_is_exact_and_no_weight_is_copied(stored, facts, checkpoint):
    report = json.loads(mome("check", stored, facts, "--json").output)
    assert (report["facts"], report["right"], report["failures"]) == (len(FACTS), len(FACTS), [])
    assert report["least_probability"] > 0.5
    assert not Folder(stored).backbone.exists()
    stated = Folder(stored).read_header()["checkpoint"]
    assert stated == {
        "family": "llama",
        "dtype": "float32",
        "fingerprint": read_checkpoint(checkpoint).fingerprint,
    }
    # Tokens of several bytes are used: there are fewer than bytes.
    assert Folder(stored).read_report()["tokens"] < sum(len(answer.encode()) + 1 for _, answer in FACTS)


def test_an_unknown_question_gets_the_logits_of_the_checkpoint_alone(stored, checkpoint):
    unknown = ["who leads group 12?", "who leads group 5"]
    questions = [*unknown, *(question for question, _ in FACTS)]
    alone = read_checkpoint(checkpoint)
    with Memory.load(stored) as memory:
        asked = memory.index.asked(questions, memory.settings)
        assert np.asarray(asked.known).tolist() == [False] * 2 + [True] * len(FACTS)
        assert [answer.known for answer in memory.ask_all(unknown)] == [False, False]
        decoded = memory.decode(questions, asked)
        bare = greedy(
            alone.backbone, *prompts_of(alone.vocabulary, questions), end=alone.vocabulary.end, room=memory.room
        )
        told = effect(memory, [*unknown, PLAIN[5][0]], ["Parthis 1", "x", PLAIN[5][1]])
    np.testing.assert_array_equal(decoded.tokens[:2], bare.tokens[:2])
    assert decoded.probabilities[:2].tobytes() == bare.probabilities[:2].tobytes()
    assert (decoded.tokens[2:] != bare.tokens[2:]).any(axis=1).all()
    np.testing.assert_array_equal(told.unchanged, ~told.known)  # bit for bit, and only where the memory is silent
    assert told.known.any()
    assert not told.known.all()
    # The first token against a plain forward pass of one sequence.
    prompt = jnp.asarray(alone.vocabulary.prompt(questions[0]), jnp.int32)
    logits = np.asarray(jax.jit(lambda tokens: alone.backbone.unembed(alone.backbone.hidden(tokens)[-1]))(prompt))
    assert decoded.tokens[0, 0] == logits.argmax()
    weights = np.exp(logits.astype(np.float64) - logits.max())
    assert decoded.probabilities[0, 0] == pytest.approx(1 / weights.sum(), rel=1e-5)


def test_facts_are_added_changed_and_given_back(folder, tmp_path):
    more = written(tmp_path / "more.csv", [("who came later?", "the first"), PLAIN[3]])
    added = mome("add", folder, more, "--quiet", "--json")
    assert added.exit_code == 0, added.output
    assert json.loads(added.output)["added"] == 1
    before = contents(folder)["facts.csv"]
    for words in ([PLAIN[7][0], "--answer", "Another than that"], [AWKWARD[3][0], "--delete"]):
        assert mome("edit", folder, *words).exit_code == 0
    kept = {**dict(FACTS), "who came later?": "the first", PLAIN[7][0]: "Another than that"}
    del kept[AWKWARD[3][0]]
    assert_all_right(folder, list(kept.items()))
    assert mome("ask", folder, AWKWARD[3][0]).output.splitlines()[0] == "unknown"
    for _ in range(2):
        assert mome("edit", folder, "--undo").exit_code == 0
    assert mome("export", folder, "--quiet").stdout_bytes == before


def test_another_checkpoint_in_its_place_is_refused_and_a_moved_one_is_found(folder, checkpoint, facts, tmp_path):
    moved = Path(shutil.copytree(checkpoint, tmp_path / "moved"))
    gone = tmp_path / "gone"
    header = Folder(folder).read_header() | {"checkpoint_folder": str(gone)}
    Folder(folder).write_header(header)
    other = tiny_checkpoint(tmp_path / "other", "llama", seed=7, **SMALL)
    one_number = Path(shutil.copytree(checkpoint, tmp_path / "one number"))
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.embed_tokens.weight"][17, 3] += 1e-3
    write_weights(one_number, tensors)
    words = ["ask", folder, PLAIN[2][0]]
    for flags, message in [
        ([], f"{gone}: the checkpoint of {folder} is not there"),
        (["--backbone", other], f"{other}: is not the checkpoint"),
        (["--backbone", one_number], f"{one_number}: is not the checkpoint"),
    ]:
        result = mome(*words, *flags)
        assert result.exit_code == REFUSED, result.output
        assert message in result.output
        assert len(result.output.splitlines()) == 1
    assert mome(*words, "--backbone", moved).output.splitlines()[0] == PLAIN[2][1]
    refused = mome("memorize", facts, "--out", folder, "--backbone", other, "--quiet")
    assert refused.exit_code == REFUSED
    assert "beside another model" in refused.output
    # Who writes has the new place written down.
    assert mome("edit", folder, "who came later?", "--answer", "x", "--backbone", moved).exit_code == 0
    assert mome(*words).output.splitlines()[0] == PLAIN[2][1]


def test_a_killed_run_goes_on_from_its_states_to_the_same_bits(stored, checkpoint, tmp_path, monkeypatch):
    """With the model of the other memory, which is the checkpoint."""
    facts = facts_of(tmp_path / "facts.csv", FACTS, Settings(experts=4))
    settings, model, folder = Folder(stored).settings(), given_model(stored), Folder(tmp_path / "killed")

    def killed(*_):
        raise KeyboardInterrupt

    def never(*_, **__):
        raise AssertionError("the states were there")

    with monkeypatch.context() as once:
        once.setattr(memorizing.DiskBank, "store", killed)
        with pytest.raises(KeyboardInterrupt):
            memorizing.memorize(facts, folder, settings, model=model, quiet=True)
    assert mome("ask", folder.path, PLAIN[0][0]).exit_code == REFUSED
    monkeypatch.setattr(memorizing, "hidden_states", never)
    memorizing.memorize(facts, folder, settings, model=model, quiet=True)
    assert folder.read_header()["checkpoint_folder"] == str(checkpoint)
    assert bank_values(folder).tobytes() == bank_values(Folder(stored)).tobytes()


def test_a_plan_says_what_it_takes_and_reads_no_weights(checkpoint, facts, stored, tmp_path):
    words = ["memorize", facts, "--out", tmp_path / "new", "--plan", "--json", "--backbone"]
    planned = json.loads(mome(*words, checkpoint).output)
    numbers = sum(tensor.size for tensor in load_file(checkpoint / "model.safetensors").values())
    assert planned["bytes of its weights"] == 4 * numbers
    assert planned["bank bytes"] == planned["experts"] * 32 * 4
    tokens = planned["answer tokens"]
    assert tokens == Folder(stored).read_report()["tokens"]
    assert planned["FLOPs of a writing pass over all tokens, at most"] == tokens * 2 * 32 * 288 * 17
    assert not (tmp_path / "new").exists()
    half = json.loads(mome(*words, checkpoint, "--dtype", "bfloat16").output)
    assert half["bytes of its weights"] == 2 * numbers
    there = ["memorize", facts, "--out", stored, "--plan", "--json", "--backbone", checkpoint]
    assert json.loads(mome(*there).output)["folder"] == f"{stored} (complete already)"
    assert "beside another model" in mome(*there, "--dtype", "bfloat16").output
    for flags in (["--dtype", "bfloat16"], ["--backbone", tmp_path, "--dtype", "bfloat16"]):
        result = mome("memorize", facts, "--out", tmp_path / "new", *flags)
        assert result.exit_code == REFUSED
        assert "--dtype bfloat16" in result.output


def test_bfloat16_weights_and_an_unembedding_that_is_not_linear(tmp_path):
    """Gemma 2 caps its logits, here as in its own checkpoints at 30."""
    sizes = {**SMALL, "vocab_size": 320, "eos_token_id": 2, "final_logit_softcapping": 30.0}
    model = given_model(tiny_checkpoint(tmp_path / "gemma", "gemma2", tokenizer="pieces", **sizes), "bfloat16")
    folder, settings = Folder(tmp_path / "memory"), Settings(experts=512)
    report = memorizing.memorize(facts_of(tmp_path / "facts.csv", PLAIN, settings), folder, settings, model=model)
    assert report["stored"] == len(PLAIN)
    assert np.load(folder.states).dtype == np.float32
    assert_all_right(folder.path, PLAIN)


def test_a_memory_keeps_the_template_it_was_made_with(tmp_path):
    """Whoever asks, adds, changes or gives back reads it from the header; special tokens in it are tokens."""
    checkpoint = tiny_checkpoint(tmp_path / "chat", "llama", **SMALL)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(
        [AddedToken(word, special=True, normalized=False) for word in ("<|user|>", "<|turn|>")]
    )
    tokenizer.save(str(checkpoint / "tokenizer.json"))
    rows = [*PLAIN[:4], ("<|turn|>\nyes?", "<|user|>")]
    facts, folder, typed = written(tmp_path / "facts.csv", rows), tmp_path / "memory", r"<|user|>{question}<|turn|>\n"
    words = ["memorize", facts, "--out", folder, "--backbone", checkpoint, "--experts", 512, "--quiet"]
    planned = json.loads(mome(*words, "--template", typed, "--plan", "--json").output)
    assert planned["template"] == "<|user|>{question}<|turn|>\n"
    assert planned["special tokens of the template"] == ["<|user|>", "<|turn|>"]
    assert f"template: '{typed}'" in mome(*words, "--template", typed, "--plan").output.splitlines()
    made = mome(*words, "--template", typed)
    assert made.exit_code == 0, made.output
    assert r"template '<|user|>{question}<|turn|>\n'" in made.output
    assert Folder(folder).read_header()["checkpoint"]["template"] == "<|user|>{question}<|turn|>\n"
    with Memory.load(folder) as memory:
        named = [tokenizer.token_to_id(word) for word in ("<|user|>", "<|turn|>")]
        for question in ("who?", rows[4][0]):
            assert [token for token in memory.vocabulary.prompt(question) if token in named] == named
    assert mome("add", folder, written(tmp_path / "more.csv", [("new?", "one")]), "--quiet").exit_code == 0
    assert mome("edit", folder, rows[0][0], "--answer", "x").exit_code == 0
    kept = [(rows[0][0], "x"), *rows[1:], ("new?", "one")]
    assert mome("check", folder, written(tmp_path / "kept.csv", kept)).exit_code == 0
    assert mome("export", folder, "--quiet").stdout_bytes == (tmp_path / "kept.csv").read_bytes()
    before = contents(folder)
    for flags in ([], ["--template", "Q: {question}\nA: "], ["--template", typed + " "]):
        refused = mome(*words, *flags)
        assert refused.exit_code == REFUSED
        assert "with another template" in refused.output
    assert contents(folder) == before
    # The header has to fit the files of the checkpoint.
    header = Folder(folder).read_header()
    for template, message in [(None, "is not the checkpoint"), (7, "is damaged"), ("no place", "does not hold")]:
        stated = header["checkpoint"] | {"template": template}
        if template is None:  # as in memories from before there were others
            del stated["template"]
        Folder(folder).write_header(header | {"checkpoint": stated})
        refused = mome("ask", folder, "new?")
        assert (refused.exit_code, len(refused.output.splitlines())) == (REFUSED, 1)
        assert message in refused.output


@pytest.mark.parametrize(
    ("template", "backbone", "message"),
    [
        ("Say {question}:", None, "is that of a checkpoint; name one with --backbone FOLDER"),
        ("Say {question}:", "memory", "is no checkpoint (it has no config.json); leave it out"),
        ("Say it:", "checkpoint", "does not hold {question} once; write it in"),
        ("", "checkpoint", "does not hold {question} once; write it in"),
        (r"{question}\q", "checkpoint", r"'\\q' means nothing; write \n, \t, or \\ for a backslash"),
        ("{question}\\", "checkpoint", r"'\\' means nothing"),
    ],
)
def test_a_template_that_cannot_be_is_refused(checkpoint, stored, facts, tmp_path, template, backbone, message):
    places = {"checkpoint": checkpoint, "memory": stored}
    flags = [] if backbone is None else ["--backbone", places[backbone]]
    result = mome("memorize", facts, "--out", tmp_path / "new", "--template", template, *flags)
    assert (result.exit_code, len(result.output.splitlines())) == (REFUSED, 1), result.output
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_an_empty_template_is_not_the_usual_one_in_experiments_either(checkpoint):
    with pytest.raises(Refusal, match=r"does not hold \{question\} once; write it in"):
        from_folder(checkpoint, "quick", "")


def test_a_folder_that_holds_no_model_is_refused(facts, tmp_path):
    result = mome("memorize", facts, "--out", tmp_path / "memory", "--backbone", tmp_path)
    assert result.exit_code == REFUSED
    assert f"--backbone {tmp_path}: is neither a checkpoint (no config.json) nor a memory" in result.output
    assert not (tmp_path / "memory").exists()
