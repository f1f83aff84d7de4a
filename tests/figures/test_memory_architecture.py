"""The picture of a memory's architecture: the numbers in it are the memory's, and all of it can be read."""

import csv
import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from figures.memory_architecture import NAME, architecture, draw_memory
from figures.style import styled
from sims.memory.folder import Folder, plain
from sims.memory.known import Index
from sims.memory.memory import Memory
from sims.memory.show import described
from tests.sims.checkpoint_making import tiny_checkpoint
from tests.sims.memory_making import FACTS, SETTINGS, mome, stored_memory


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    return stored_memory(tmp_path_factory)


@pytest.fixture
def other(stored, tmp_path) -> Path:
    """Another memory: of fewer questions, with mixed addresses, beside a checkpoint."""
    folder = Path(shutil.copytree(stored, tmp_path / "memory"))
    settings = replace(SETTINGS, addresses="mixed", chosen=7, share=0.6, false_acceptance=0.2)
    Index.of([question for question, _ in FACTS[:17]], settings).write(folder / "index.safetensors")
    place = tiny_checkpoint(tmp_path / "model", "gemma")
    stated = {"family": "gemma", "dtype": "float32", "fingerprint": "0123456789abcdef" * 4}
    header = Folder(folder).read_header() | {"settings": plain(settings), "false_acceptance_rate": 0.1234}
    Folder(folder).write_header(header | {"checkpoint": stated, "checkpoint_folder": str(place)})
    return folder


def drawn(shown) -> Figure:
    with styled():
        return architecture(shown)


def words_of(picture: Figure, name: str) -> str:
    return " ".join(text.get_text() for text in picture.axes[0].texts if text.get_gid() == name)


def test_the_boxes_hold_the_numbers_of_the_memory(stored):
    picture = drawn(described(Folder(stored)))
    with Memory.load(stored) as memory:
        index, bank, sizes = memory.index, memory.bank, memory.backbone
        expected = {
            "question": [f"at most {sizes.context} tokens"],
            "addresses": ["exact addresses", f"{memory.settings.chosen} experts a token"],
            "experts": [f"{memory.settings.chosen} of {bank.experts:,} experts", f"a vector of {bank.width} each"],
            "known": [
                f"filter: {len(index.identities)} questions, {100 * index.filter.false_acceptance_rate:.2f} %",
                f"{8 * index.filter.bytes / len(FACTS):.1f} bits each",
            ],
            "model": ["byte transformer, frozen", f"1 layers, width {sizes.width}", f"{sizes.parameters:,} parameters"],
            "unembedding": [f"{sizes.vocabulary} tokens"],
            "state": [f"value, {bank.width}", f"state, {sizes.width}"],
            "bank": [f"{(stored / 'bank.safetensors').stat().st_size / 1e3:.1f} kB on disk"],
            "facts": [f"{len(FACTS)} facts"],
        }
    for name, parts in expected.items():
        for part in parts:
            assert part in words_of(picture, name)


def test_another_memory_has_other_numbers(stored, other):
    one, two = (drawn(described(Folder(folder))) for folder in (stored, other))
    radius = Index.read(Folder(other)).radius
    for name, parts in {
        "addresses": ["mixed addresses", "4 by hash, weight 0.6", "3 by product keys, weight 0.4", "16,384 slots"],
        "experts": ["7 of 1,024 experts"],
        "known": ["one of 17 stored ones", f"more alike than {radius:.3f}", "at most 20.00 % of others"],
        "model": ["gemma, frozen", "3 layers, width 32", "fingerprint 0123456789ab"],
        "unembedding": ["288 tokens"],
        "facts": ["17 facts"],
    }.items():
        for part in parts:
            assert part in words_of(two, name)
            assert part not in words_of(one, name)


def test_a_checkpoint_that_is_away_is_drawn_without_its_sizes(other, tmp_path):
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    picture = drawn(described(Folder(other)))
    assert words_of(picture, "model") == "gemma, frozen a checkpoint that lies elsewhere fingerprint 0123456789ab"
    assert "None" not in " ".join(text.get_text() for text in picture.axes[0].texts)


def test_the_command_draws_the_same_bytes_twice_and_says_what_it_drew(stored, tmp_path):
    result = mome("show", stored, "--out", tmp_path)
    paths = [Path(line) for line in result.output.splitlines()[-3:]]
    assert paths == [tmp_path / "figures" / f"{NAME}.{ending}" for ending in ("png", "pdf", "csv")]
    again = draw_memory(described(Folder(stored)), tmp_path / "again")
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    with paths[2].open(newline="", encoding="utf-8") as file:
        written = [(row["series"], row["value"]) for row in csv.DictReader(file)]
    texts = drawn(described(Folder(stored))).axes[0].texts
    assert written == [(text.get_gid(), text.get_text()) for text in texts if text.get_gid()]


@pytest.mark.parametrize("kind", ["exact", "nearest", "mixed", "learned"])
def test_everything_can_be_read_whatever_the_numbers(stored, kind):
    """No text leaves its box or touches another, at seven inches, with the largest numbers there are."""
    shown = described(Folder(stored))
    shown |= {"facts": 99_999_999, "experts": 2**31 - 1, "chosen": 64, "edits": [{}] * 999}
    shown["value"]["width"] = 16_384
    shown["model"] |= {"family": "gemma3_text", "layers": 126, "width": 16_384, "parameters": 405_853_388_800}
    shown["model"] |= {"vocabulary": 262_144, "context": 1_048_576, "fingerprint": "0123456789ab" * 5}
    shown["written"] |= {"tokens": 999_999_999, "worst_token_nats": 0.612}
    shown["addresses"] |= {"kind": kind, "by_hash": 32, "by_keys": 32, "slots": 16_384, "question_vector": 128}
    shown["known"] |= {"by": "filter" if kind == "exact" else "comparison", "likeness": 0.987}
    assert_legible(drawn(shown))


def test_the_same_check_finds_a_text_that_is_too_wide(stored):
    shown = described(Folder(stored))
    shown["model"]["family"] = "a family whose name is as long as this"
    with pytest.raises(AssertionError, match="as long as this"):
        assert_legible(drawn(shown))


def assert_legible(picture: Figure) -> None:
    picture.draw_without_rendering()
    axes, page = picture.axes[0], picture.bbox
    texts = [text for text in [*axes.texts, *picture.texts] if text.get_text().strip()]
    around = [(text.get_text(), text.get_window_extent()) for text in texts]
    assert all(text.get_fontsize() >= 7 for text in texts)
    assert all(_within(page, box) for _, box in around)
    for (text, box), (beside, other) in itertools.combinations(around, 2):
        assert not _touch(box, other), (text, beside)
    for patch in axes.patches:
        if isinstance(patch, FancyBboxPatch):
            frame = patch.get_window_extent()
            for text, box in around:
                assert not _touch(frame, box) or _within(frame, box), text


def _touch(one, other) -> bool:
    """Whether two boxes have more than a hair in common."""
    across = min(one.x1, other.x1) - max(one.x0, other.x0)
    along = min(one.y1, other.y1) - max(one.y0, other.y0)
    return across > 0.5 and along > 0.5


def _within(frame, box) -> bool:
    """Whether there is a margin on each side."""
    frame = frame.padded(-2)
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
