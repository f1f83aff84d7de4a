"""The pretrained base: a small language model that has read a file's questions and has learned a rule.

It stands in for a pretrained checkpoint. Of the facts it knows the questions, as text up to ASK, and no answer: what an
adaptation stores is stored by the adaptation. The rule is what else it can do, so that forgetting can be seen.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from threading import Lock

import numpy as np

from sims.adapting.reading import question_loss_nats
from sims.adapting.rule import LETTERS, rule_accuracy, rule_examples
from sims.memory.byte_backbone import ByteBackbone
from sims.memory.pretraining import one_pass, pretrain
from sims.tokens import ByteVocabulary, TokenizedFacts, tokenize

FORMULA = 1  # part of a base's identity: raise it when any number below changes
HELD_OUT = 512  # examples of the rule
TOKENS_PER_STEP = 512  # padded: at 1024 the rule takes twice the tokens
LEARNING_RATE = 3e-3  # at twice as much wide networks learn the rule late
# Seen on a core of the machine of the README, at widths from 32 to 256.
_SECONDS_PER_GIGAFLOP, _SECONDS_PER_MILLION_TOKENS, _SECONDS_OF_COMPILING = 0.016, 65.0, 8.0


@dataclass(frozen=True)
class Sizes:
    """Of the network, and of what it is trained on."""

    context: int  # tokens of the longest sequence that is ever read, answers included
    width: int = 64
    layers: int = 2
    heads: int = 4
    rule_examples: int = 8192  # each shown once
    passes: int = 2  # over the questions


@dataclass(frozen=True, eq=False)
class Base:
    """A pretrained network, and how good it is at what it was trained on. The same object for all who ask."""

    backbone: ByteBackbone  # its arrays are shared: hand them to no program that donates them
    rule_questions: tuple[str, ...]  # held out
    rule_answers: tuple[str, ...]
    rule_accuracy: float  # share of these that greedy decoding gives
    question_loss_nats: float  # per token of the questions, which were trained on
    steps: int
    tokens: int  # that were predicted, repetitions included


def context_for(questions: Sequence[str], answers: Sequence[str], *, characters: int = 32) -> int:
    """Tokens of the longest fact in bytes, with its own answer or with a random one; ASK and END included.

    >>> context_for(["Who?"], ["Ada"])
    38
    """
    longest = [max(len(answer.encode()), characters) for answer in answers]
    return max(len(question.encode()) + most for question, most in zip(questions, longest, strict=True)) + 2


def identity(questions: Sequence[str], seed: int, sizes: Sizes) -> str:
    """128 bits in hexadecimal that name the base: of everything that decides its weights."""
    spec = {"formula": FORMULA, "letters": LETTERS, "seed": seed, **asdict(sizes), "questions": list(questions)}
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:32]


def seconds(questions: Sequence[str], sizes: Sizes) -> float:
    """How long training it should take on one core that has nothing else to do, compilation included."""
    width = sizes.width
    shown = sizes.passes * sum(len(question.encode()) for question in questions)
    shown += sizes.rule_examples * (len("next ") + 2 * LETTERS + 1)
    vocabulary = ByteVocabulary().content + 3
    flops = 6.0 * shown * (sizes.layers * 12 * width**2 + width * vocabulary)
    return _SECONDS_OF_COMPILING + flops / 2**30 * _SECONDS_PER_GIGAFLOP + shown / 1e6 * _SECONDS_PER_MILLION_TOKENS


_guard = Lock()
_begun: dict[str, Future[Base]] = {}


def base(questions: Sequence[str], seed: int, sizes: Sizes) -> Base:
    """The base of these questions, trained when it is first asked for; who asks meanwhile waits for it.

    The same arguments give the same weights on one machine. Raises Refusal if a question does not fit the context.
    """
    name = identity(questions, seed, sizes)
    with _guard:
        mine = name not in _begun
        found = _begun.setdefault(name, Future())
    if mine:
        try:
            found.set_result(_trained(questions, seed, sizes))
        except BaseException as error:
            with _guard:
                del _begun[name]
            found.set_exception(error)
    return found.result()


def _trained(questions: Sequence[str], seed: int, sizes: Sizes) -> Base:
    texts = _texts(questions, seed, sizes)
    steps = len(one_pass(texts, seed, TOKENS_PER_STEP))
    done = pretrain(
        texts,
        steps,
        seed=seed,
        tokens_per_step=TOKENS_PER_STEP,
        learning_rate=LEARNING_RATE,
        context=sizes.context,
        width=sizes.width,
        layers=sizes.layers,
        heads=sizes.heads,
    )
    held_out = rule_examples("held out", HELD_OUT, seed)
    right = rule_accuracy(done.backbone, *held_out)
    loss = question_loss_nats(done.backbone, questions)
    return Base(done.backbone, *held_out, float(right.mean()), loss, done.steps, done.tokens)


def _texts(questions: Sequence[str], seed: int, sizes: Sizes) -> TokenizedFacts:
    """Examples of the rule, then the questions once a pass, of which ASK is due: rows to be shown once each."""
    examples = rule_examples("trained on", sizes.rule_examples, seed)
    tokens = tokenize(*examples, unseen=questions, longest=sizes.context)
    asks = np.arange(tokens.unseen.shape[1]) == tokens.unseen_lengths[:, None] - 1
    return replace(
        tokens,
        tokens=np.concatenate([tokens.tokens, np.tile(tokens.unseen, (sizes.passes, 1))]),
        answer_mask=np.concatenate([tokens.answer_mask, np.tile(asks, (sizes.passes, 1))]),
    )
