"""The tokens of a checkpoint: a question becomes a prompt, an answer the tokens that follow it, and these text again.

A checkpoint has no id to spare that could separate question and answer: a template does, as text. The answer is
encoded in its place after the prompt, since tokenizers treat the start of a text and a space before a word in their own
ways; and it is spelled token by token, so that what tokens say does not depend on what stands around them.

A template may name special tokens, as those of chat models do: there they are the tokens. In a question or an answer
the same characters are text, so that nobody who asks can end the question or begin a turn of his own.
"""

import hashlib
import json
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sims.checkpoints.config import read_object
from sims.checkpoints.template import QUESTION, TEMPLATE
from sims.fact_files import check_text
from theory.console import Refusal

_MARK = "\ue000special token\ue001"  # of a place where the template has one: characters that no tokenizer gives meaning
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")  # of tokenizers with byte fallback; any other piece is text
_METASPACE = "▁"  # a space in tokenizers that came from SentencePiece


@dataclass(frozen=True, eq=False)
class CheckpointVocabulary:
    """The tokenizer of a checkpoint, with the template around a question: a `sims.tokens.Vocabulary`.

    Spaces at the end of the template are read as part of the answer, as most tokenizers join them to the next word;
    `spell` takes them away again. What the tokenizer puts first is there once, also where the template names it.
    """

    tokenizer: Any  # tokenizers.Tokenizer
    size: int
    end: int
    pad: int
    begin: int | None = None  # where the tokenizer does not put it first by itself
    template: str = TEMPLATE
    digest: str = ""  # SHA-256 of the tokenizer's file

    def __post_init__(self):
        if self.template.count(QUESTION) != 1:
            raise Refusal(f"the template {self.template!r} does not hold {QUESTION} once; write it in")
        check_text(f"the template {self.template!r}", self.template)
        self.tokenizer.encode_special_tokens = True  # "</s>" in a fact is text, not the end of it
        self.tokenizer.no_truncation()  # some files cut and fill, as their last user did
        self.tokenizer.no_padding()
        if not self._bytes:
            raise Refusal("tokenizer.json: it has no tokens; fetch the checkpoint again")

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Those that the template names, in its order."""
        return tuple(self.tokenizer.id_to_token(number) for number in self._marked[1])

    def prompt(self, question: str) -> Sequence[int]:
        """What the tokenizer puts first, and the template up to the answer."""
        return self._read(self._before(question))

    def answer_ids(self, question: str, answer: str) -> Sequence[int]:
        """Tokens of the answer after the prompt of this question, without END."""
        before, prompt = self._before(question), self.prompt(question)
        whole = self._read(before + self._space + answer)
        if whole[: len(prompt)] == prompt:
            return whole[len(prompt) :]
        # The end of the prompt and the start of the answer make one token: encode the answer alone.
        return self._checked(self._encode(self._space + answer, add_special_tokens=False).ids)

    def spell(self, tokens: Iterable[int]) -> bytes:
        """The bytes of an answer's tokens without the template's space; special tokens say nothing."""
        text = b"".join(self._bytes.get(int(token), b"") for token in tokens if token != self.end)
        return text.removeprefix(self._lead)

    def decode(self, tokens: Iterable[int]) -> str:
        """What `spell` gives, as text: what is not UTF-8 becomes the replacement character."""
        return self.spell(tokens).decode(errors="replace")

    @property
    def identity(self) -> dict[str, Any]:
        """What every id of a fact follows from, as plain JSON values."""
        return {
            "tokenizer": self.digest,
            "size": self.size,
            "end": self.end,
            "pad": self.pad,
            "begin": self.begin,
            "template": self.template,
        }

    def _before(self, question: str) -> str:
        return self._marked[0].removesuffix(self._space).replace(QUESTION, question)

    @cached_property
    def _marked(self) -> tuple[str, tuple[int, ...]]:
        """The template with a mark in the place of each special token that it names, and their ids.

        A mark is an added token too, so that the tokenizer cuts and spells the text around it as around the other.
        """
        special = {number for number, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.tokenizer.encode_special_tokens = False
        read = self._encode(self.template, add_special_tokens=False)
        self.tokenizer.encode_special_tokens = True
        named = [(number, *place) for number, place in zip(read.ids, read.offsets, strict=True) if number in special]
        text = self.template
        for _, first, last in reversed(named):  # with the spaces around it that it takes up
            text = text[:first] + _MARK + text[last:]
        if named:
            self.tokenizer.add_tokens([_mark_token()])
        return text, tuple(number for number, *_ in named)

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        """Of each token that says something."""
        return _spellings(self.tokenizer)

    @property
    def _space(self) -> str:
        marked = self._marked[0]
        return marked[len(marked.rstrip(" ")) :]

    @cached_property
    def _lead(self) -> bytes:
        """What tokens of an answer say before it: the template's space, and one that comes after special tokens.

        Some tokenizers put that before every text, and a special token begins a new one.
        """
        if not self._marked[0].rstrip(" ").endswith(_MARK):
            return self._space.encode()
        return b"".join(self._bytes.get(token, b"") for token in self.answer_ids("x", "x")).removesuffix(b"x")

    def _read(self, text: str) -> list[int]:
        read = self._encode(text)
        ids, begins = read.ids, read.special_tokens_mask[:1] == [1]
        while ids and ids[-1] == self.end:  # some tokenizers end every text
            ids.pop()
        ids = self._with_special_tokens(ids)
        if begins and self._marked[0].startswith(_MARK) and ids[:1] == ids[1:2]:
            ids.pop(0)
        if self.begin is not None and ids[:1] != [self.begin]:
            ids.insert(0, self.begin)
        return self._checked(ids)

    def _encode(self, text: str, *, add_special_tokens: bool = True) -> Any:
        try:
            return self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        except BaseException as error:  # a panic of the library is no Exception
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            why, remedy = str(error).splitlines()[0], "write it otherwise, or fetch the checkpoint again"
            raise Refusal(f"tokenizer.json: cannot encode {reprlib.repr(text)} ({why}); {remedy}") from None

    def _with_special_tokens(self, ids: list[int]) -> list[int]:
        """The template's special tokens in the places of their marks."""
        named = self._marked[1]
        if not named:
            return ids
        mark = self.tokenizer.token_to_id(_MARK)
        if ids.count(mark) != len(named):
            raise Refusal(f"a question or answer holds {_MARK!r}, which stands for a special token; leave it out")
        rest = iter(named)
        return [next(rest) if number == mark else number for number in ids]

    def _checked(self, ids: list[int]) -> list[int]:
        if ids and max(ids) >= self.size:
            raise Refusal(f"the tokenizer gives id {max(ids)} and the network has {self.size}: two checkpoints mixed")
        return ids


def read_vocabulary(folder: Path, size: int, template: str = TEMPLATE) -> CheckpointVocabulary:
    """The tokenizer.json of a folder, and the ids that its other files name; `size` is the network's.

    Raises Refusal if the library is not installed, the file is none, or no file names the end of a text.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise Refusal("tokenizers is not installed; install the extra: pip install 'loss-threshold[llm]'") from None
    file = folder / "tokenizer.json"
    read_object(file)  # so that what is no JSON is refused in the words of all other files
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more special
        raise Refusal(f"{file}: is no tokenizer ({str(error).splitlines()[0]}); fetch the checkpoint again") from None
    settings = _settings(folder)
    end = _special(tokenizer, settings, "eos_token", size)
    if end is None:
        raise Refusal(f"{folder}: neither config.json nor tokenizer_config.json names the end of a text; add eos_token")
    pad, begin = (_special(tokenizer, settings, name, size) for name in ("pad_token", "bos_token"))
    if not any(found.get("add_bos_token") is True for found in settings):
        begin = None
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return CheckpointVocabulary(tokenizer, size, end, end if pad is None else pad, begin, template, digest)


def _settings(folder: Path) -> list[dict[str, Any]]:
    names = ("config.json", "generation_config.json", "tokenizer_config.json")
    return [read_object(folder / name) for name in names if (folder / name).is_file()]


def _special(tokenizer: Any, settings: Sequence[Mapping[str, Any]], name: str, size: int) -> int | None:
    """The id under `name_id`, the first of a list of them; or that of the token under `name`."""
    for found in settings:
        number = found.get(f"{name}_id")
        number = number[0] if isinstance(number, list) and number else number
        if type(number) is int and 0 <= number < size:
            return number
    for found in settings:
        word = found.get(name)
        word = word.get("content") if isinstance(word, dict) else word
        number = tokenizer.token_to_id(word) if isinstance(word, str) else None
        if number is not None and number < size:
            return number
    return None


def _mark_token() -> Any:
    """An added token that is not special: those that are count as text here."""
    from tokenizers import AddedToken

    return AddedToken(_MARK, special=False, normalized=False)


def _spellings(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each token that is not special, by the two ways in which tokenizers write bytes as characters."""
    kinds = _kinds(json.loads(tokenizer.to_str())["decoder"])
    if "ByteLevel" in kinds:
        spelled = _byte_level
    elif "ByteFallback" in kinds or "Metaspace" in kinds:
        spelled = _piece
    else:
        wanted = "take one that is byte-level or has byte fallback"
        raise Refusal(f"tokenizer.json: the decoder {' + '.join(kinds) or 'null'} is not known; {wanted}")
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    words = {number: word for word, number in tokenizer.get_vocab().items() if number not in special and word != _MARK}
    return {number: spelled(word) for number, word in words.items()}


def _kinds(decoder: Mapping[str, Any] | None) -> list[str]:
    if decoder is None:
        return []
    return [kind for part in decoder.get("decoders", []) for kind in _kinds(part)] or [decoder["type"]]


def _piece(word: str) -> bytes:
    if _BYTE.fullmatch(word):
        return bytes.fromhex(word[3:5])
    return word.replace(_METASPACE, " ").encode()


def _byte_level(word: str) -> bytes:
    if all(character in _BYTES for character in word):
        return bytes(_BYTES[character] for character in word)
    return word.encode()  # added as it is, with a character that stands for no byte


def _byte_characters() -> dict[str, int]:
    """The printable characters that stand for bytes: themselves where they are visible, else those from 256 on."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = np.setdiff1d(np.arange(256), visible).tolist()
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES = _byte_characters()
