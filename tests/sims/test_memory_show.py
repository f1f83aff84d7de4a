"""`mome show`: its numbers by a second route, what it never reads, and folders that it refuses."""

import json
import math
import os
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mome_jax.addresses import start
from mome_jax.disk import DiskBank
from mome_jax.saving import save
from sims.checkpoints import checkpoint as checkpoints
from sims.memory import memorizing
from sims.memory.addressing import Addressing, Asked
from sims.memory.folder import Folder, Settings, plain
from sims.memory.known import Index
from sims.memory.memory import Memory
from sims.memory.show import described
from sims.memory.show_text import shown_lines
from tests.sims.checkpoint_making import tiny_checkpoint
from tests.sims.memory_making import CONFLICTING, FACTS, PLAIN, SETTINGS, SIZES, contents, mome, store
from theory.console import REFUSED, Refusal
from theory.experts import load_threshold

TOKENS = sum(len(answer.encode()) + 1 for _, answer in FACTS)


def shown_of(folder: Path, backbone: Path | None = None) -> dict:
    return described(Folder(folder, backbone))


def text_of(shown: dict) -> str:
    return "\n".join(shown_lines(shown))


def raw_shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file, from its bytes alone."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}


def test_the_numbers_are_those_of_the_memory_that_answers(stored, tmp_path):
    copy = Path(shutil.copytree(stored, tmp_path / "memory"))
    printed = mome("show", copy, "--json", "--out", tmp_path / "out")
    assert printed.exit_code == 0, printed.output
    shown = json.loads(printed.output)
    assert shown == shown_of(copy)
    assert raw_shapes(copy / "bank.safetensors")["values"] == [shown["experts"], shown["value"]["width"]]
    with Memory.load(copy) as memory:
        assert shown["value"] == {"width": memory.bank.width, "dtype": str(memory.bank.dtype)}
        assert shown["facts"] == len(memory.facts) == len(FACTS)
        assert shown["known"]["false_acceptance_rate"] == memory.index.filter.false_acceptance_rate
        assert shown["known"]["filter_bits_per_fact"] == 8 * memory.index.filter.bytes / len(FACTS)
        assert shown["bytes"]["filter"] == memory.index.filter.bytes
        assert shown["bytes"]["questions"] == memory.index.identities.nbytes + memory.index.vectors.nbytes
        model, sizes = shown["model"], memory.backbone
        assert (model["width"], model["vocabulary"], model["context"]) == (sizes.width, 259, SIZES["context"])
        assert (model["layers"], model["heads"]) == (SIZES["layers"], SIZES["heads"])
    shapes = raw_shapes(copy / "backbone.safetensors")
    assert model["parameters"] == sum(math.prod(shape) for shape in shapes.values())
    assert shown["known"]["least_filter_bits_T20"] == pytest.approx(-math.log2(shown["known"]["false_acceptance_rate"]))
    written = shown["written"]
    assert (written["facts"], written["stored"], written["tokens"]) == (len(FACTS), len(FACTS), TOKENS)
    assert written["set_aside_rows"] == len(CONFLICTING)
    assert written["selection"]["load"] == TOKENS / SETTINGS.experts
    assert written["selection"]["load_threshold_T21"] == load_threshold(SETTINGS.chosen)
    for name in ("experts", "chosen", "normalize", "threshold_nats", "procedure", "seed"):
        assert shown[name] == getattr(SETTINGS, name)
    assert (shown["state"], shown["edits"], shown["begun"]) == ("whole", [], None)


def test_bytes_are_those_of_the_files(folder):
    (folder / "notes.txt").write_text("not of the memory")
    parts = shown_of(folder)["bytes"]
    sizes = {path.name: os.stat(path).st_size for path in folder.rglob("*") if path.is_file()}
    assert parts["total"] == sum(sizes.values())
    assert parts["bank"] == sizes["bank.safetensors"] + sizes.get("bank.safetensors.journal", 0)
    assert parts["filter"] + parts["questions"] + parts["index"] == sizes["index.safetensors"]
    assert parts["model"] == sizes["backbone.safetensors"]
    assert parts["states"] == sizes["states.npy"]
    assert parts["facts"] == sizes["facts.csv"] + sizes["conflicts.csv"]
    assert parts["header"] == sizes["memory.json"] + sizes["report.json"]
    assert parts["other"] == sizes["notes.txt"]


def test_the_text_says_what_the_document_says(folder):
    shown = shown_of(folder)
    lines = mome("show", folder, "--out", folder.parent / "out").output.splitlines()
    assert lines[:-3] == shown_lines(shown)
    assert [Path(line).suffix for line in lines[-3:]] == [".png", ".pdf", ".csv"]
    text = text_of(shown)
    for words in (
        f"{folder}: complete",
        f"{len(FACTS)} of {len(FACTS)} facts, {TOKENS} answer tokens",
        "4 of 1,024 experts x 32 numbers (float32)",
        f"load {TOKENS / 1024:.3f} tokens an expert (exact storage up to 0.977, T21)",
        "byte transformer, frozen: 1 layers, width 32",
        "3 rows of questions with several answers set aside",
    ):
        assert words in text


def test_nothing_is_written_and_no_row_is_read(folder):
    bank = folder / "bank.safetensors"
    content = bytearray(bank.read_bytes())
    content[-5000:] = bytes(5000)  # rows that no longer have their checksums
    bank.write_bytes(content)
    before = contents(folder)
    shown = shown_of(folder)
    assert (shown["state"], shown["bytes"]["bank"]) == ("whole", len(content))
    assert contents(folder) == before
    assert not (folder / "work").exists()


@pytest.mark.parametrize("kind", ["nearest", "mixed", "learned"])
def test_addresses_of_each_kind(folder, kind):
    settings = replace(SETTINGS, addresses=kind, chosen=5, false_acceptance=0.2, share=0.75)
    index = Index.of([question for question, _ in FACTS], settings)
    index.write(folder / "index.safetensors")
    header = Folder(folder).read_header()
    Folder(folder).write_header(header | {"settings": plain(settings)})
    shown = shown_of(folder)
    addresses, known = shown["addresses"], shown["known"]
    assert (addresses["kind"], known["by"]) == (kind, "comparison")
    assert addresses["question_vector"] == index.vectors.shape[1]
    assert known["likeness"] == index.radius
    assert np.isfinite(index.radius)
    assert f"more alike than {index.radius:.3f}" in text_of(shown)
    # By the weights that the addresses themselves give: those of the hashed half come first.
    addressing = Addressing.of(settings, index.queries.width)
    one = Asked(jnp.asarray(index.identities[0]), jnp.asarray(index.vectors[0]), jnp.bool_(True), jnp.bool_(True))
    weights = np.asarray(addressing.select(one, start(0), 5).weights)
    assert weights[: addresses["by_hash"]].sum() == pytest.approx(addresses["share_by_hash"], abs=1e-6)
    assert addresses["by_hash"] + addresses["by_keys"] == len(weights)
    slots = None if addressing.learned is None else addressing.learned.keys.experts
    assert addresses["slots"] == slots


def test_likeness_that_could_not_be_calibrated_is_told(folder):
    settings = replace(SETTINGS, addresses="nearest", false_acceptance=0.01)
    Index.of([question for question, _ in FACTS], settings).write(folder / "index.safetensors")
    Folder(folder).write_header(Folder(folder).read_header() | {"settings": plain(settings)})
    shown = shown_of(folder)
    assert shown["known"]["likeness"] is None
    assert "too few to calibrate" in text_of(shown)


def test_a_checkpoint_is_described_and_never_read(folder, tmp_path, monkeypatch):
    place = tiny_checkpoint(tmp_path / "models" / "tiny", "qwen3", num_hidden_layers=2)
    (folder / "backbone.safetensors").unlink()
    stated = {"family": "qwen3", "dtype": "bfloat16", "fingerprint": "0123456789abcdef" * 4, "template": "{question}\n"}
    header = Folder(folder).read_header() | {"checkpoint": stated, "checkpoint_folder": str(place)}
    Folder(folder).write_header(header)

    def never(*_, **__):
        raise AssertionError("weights were read")

    monkeypatch.setattr(checkpoints, "read_tensors", never)
    shown = shown_of(folder)
    tensors = load_file(place / "model.safetensors")
    model = shown["model"]
    assert {name: model[name] for name in stated} == stated
    assert model["parameters"] == sum(tensor.size for tensor in tensors.values())
    assert [model["vocabulary"], model["width"]] == list(tensors["model.embed_tokens.weight"].shape)
    assert model["layers"] == 2
    assert (model["place"], model["lies_there"], shown["bytes"]["model"]) == (str(place), True, 0)
    assert r"reads '{question}\n'; fingerprint 0123456789ab... when memorized" in text_of(shown)

    moved = place.rename(tmp_path / "moved")
    for backbone, lies_there in [(None, False), (tmp_path, False), (moved, True)]:
        model = shown_of(folder, backbone)["model"]
        assert model["lies_there"] == lies_there
        assert (model["parameters"] is None) != lies_there
    text = mome("show", folder, "--out", tmp_path / "out").output
    assert f"at {place}," in text
    assert "which is not there now; say where it is with --backbone FOLDER" in text


def test_a_checkpoint_of_another_family_is_not_taken_for_it(folder, tmp_path):
    place = tiny_checkpoint(tmp_path / "models" / "tiny", "mistral", num_hidden_layers=1)
    stated = {"family": "llama", "dtype": "float32", "fingerprint": "f" * 64}
    header = Folder(folder).read_header() | {"checkpoint": stated, "checkpoint_folder": str(place)}
    Folder(folder).write_header(header)
    model = shown_of(folder)["model"]
    assert (model["family"], model["lies_there"], model["parameters"]) == ("llama", False, None)


def test_an_interrupted_memory_says_how_far_it_came_and_has_no_picture(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    folder = tmp_path / "memory"
    monkeypatch.setattr(memorizing.DiskBank, "store", killed)
    with pytest.raises(KeyboardInterrupt):
        store(folder, FACTS)
    save_pass = folder / "work" / "pass.safetensors"
    save_pass.parent.mkdir(exist_ok=True)
    save(save_pass, {"values": np.zeros((4, 2), np.float32)}, {"passes": 7}, overwrite=True)
    shown = shown_of(folder)
    assert shown["state"] == "interrupted"
    assert shown["begun"] == {"answer_tokens": TOKENS, "passes": 7}
    assert [shown[name] for name in ("facts", "value", "known", "written")] == [None] * 4
    assert shown["bytes"]["work"] == save_pass.stat().st_size
    result = mome("show", folder, "--out", tmp_path / "out")
    assert result.exit_code == 0
    assert "not complete; the `mome memorize` that began it goes on where it stopped" in result.output
    assert f"{TOKENS} answer tokens were read; 7 passes of writing are saved" in result.output
    assert not (tmp_path / "out").exists()


def test_a_memory_begun_without_a_model_says_so(tmp_path):
    folder = Folder(tmp_path / "memory")
    with folder.begun({"settings": plain(Settings(experts=64)), "facts": "x"}):
        shown = described(folder)
    assert (shown["state"], shown["model"]) == ("interrupted", None)
    text = text_of(shown)
    assert "not pretrained yet" in text
    assert "its states are not computed; 0 passes" in text


def test_what_is_pending_counts_and_is_left_to_others(folder, monkeypatch):
    memory = Folder(folder)
    grown = Index.of([*(question for question, _ in FACTS), "one more?"], SETTINGS)

    def killed(*_):
        raise KeyboardInterrupt

    grown.write(memory.next(memory.index))
    with monkeypatch.context() as once:
        once.setattr(Folder, "_finish_replacing", killed)
        with pytest.raises(KeyboardInterrupt):
            memory.replace(memory.read_header(), [memory.index])
    before = contents(folder)
    shown = shown_of(folder)
    assert (shown["state"], shown["facts"]) == ("pending", len(FACTS) + 1)
    assert "about to take their places" in text_of(shown)
    assert contents(folder) == before


def test_edits_are_listed_and_counted(folder):
    question, answer = PLAIN[4]
    assert mome("edit", folder, "who came later?", "--answer", "the last").exit_code == 0
    assert mome("edit", folder, question, "--delete").exit_code == 0
    shown = shown_of(folder)
    assert shown["edits"] == [
        {"question": "who came later?", "before": None, "after": "the last"},
        {"question": question, "before": answer, "after": None},
    ]
    assert (shown["facts"], shown["written"]["facts"]) == (len(FACTS), len(FACTS))
    assert shown["bytes"]["edits"] == sum(path.stat().st_size for path in (folder / "edits").iterdir())
    assert f"2 that can be taken back, the last {question!r}: {answer!r} -> None" in text_of(shown)
    assert mome("edit", folder, "--undo").exit_code == 0
    shown = shown_of(folder)
    assert (len(shown["edits"]), shown["facts"]) == (1, len(FACTS) + 1)


def test_a_report_of_another_version_is_told(folder):
    report = Folder(folder).read_report()
    del report["selection"]["singular_values"]
    (folder / "report.json").write_text(json.dumps(report))
    shown = shown_of(folder)
    assert shown["written"]["selection"] is None
    assert "not described: the report of the last writing is of another version" in text_of(shown)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("memory.json", lambda content: b"{", "cannot be read"),
        ("memory.json", lambda content: b'{"format": 1}', "is not of format 2"),
        ("memory.json", lambda content: content.replace(b'"edits": 0', b'"edits": 1'), "damaged or changed by hand"),
        ("bank.safetensors", lambda content: content[:-1], "truncated"),
        ("bank.safetensors", None, "cannot be read"),
        ("index.safetensors", lambda content: content[:200] + b"\x01" + content[201:], "index.safetensors"),
        ("backbone.safetensors", lambda content: b"nothing", "backbone.safetensors"),
        ("report.json", lambda content: b"[]", "is no report of a writing"),
        ("report.json", None, "cannot be read"),
    ],
)
def test_a_damaged_memory_is_refused_in_one_line(folder, name, damage, message):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage is not None:
        assert damage(content) != content
        path.write_bytes(damage(content))
    result = mome("show", folder, "--out", folder.parent / "out")
    assert result.exit_code == REFUSED, result.output
    assert len(result.output.splitlines()) == 1
    assert message in result.output
    assert not (folder.parent / "out").exists()


def test_files_that_are_not_what_their_names_say_are_refused(folder):
    with DiskBank.create(folder / "larger", 2048, 32) as larger:
        larger.path.replace(folder / "bank.safetensors")
    with pytest.raises(Refusal, match=r"has 2,048 experts where memory\.json states 1,024"):
        shown_of(folder)
    shutil.copyfile(folder / "index.safetensors", folder / "bank.safetensors")
    with pytest.raises(Refusal, match="holds no values"):
        shown_of(folder)


def test_a_folder_that_is_no_memory_and_a_model_too_many_are_refused(stored, tmp_path):
    for words, message in [
        ((tmp_path / "typo",), "is no memory (it has no memory.json)"),
        ((stored, "--backbone", tmp_path), "the memory has a model of its own; leave it out"),
    ]:
        result = mome("show", *words, "--out", tmp_path / "out")
        assert result.exit_code == REFUSED
        assert message in result.output
        assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
