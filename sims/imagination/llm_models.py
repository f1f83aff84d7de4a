"""The models of an imagination study with real endpoints: a TOML file, read strictly.

    [families]                          # optional: families of question models that only a questions file knows
    "someone-elses-model" = "alpha"

    [[model]]
    name = "alpha-small"                # what the tables call it
    family = "alpha"
    base_url = "http://localhost:8000/v1"
    model = "alpha-7b"                  # what the endpoint calls it
    api_key_env = "ALPHA_KEY"           # NAME of an environment variable; without it no key is sent
    input_price = 0.15                  # per million tokens, in any one currency
    output_price = 0.60

The other keys are the fields of `Model`, with their defaults. A key itself never stands in the file.
"""

import math
import os
import re
import tomllib
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from theory.console import Refusal

ROLES = ("question", "answer")
_SHORTEST_KEY = 8  # characters; what is shorter is a placeholder, and could not be told from ordinary words in a reply
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
_HEADER = re.compile(r"^\s*\[\[\s*model\s*\]\]")


@dataclass(frozen=True)
class Model:
    """One chat endpoint. Temperatures of None are not sent: some endpoints accept only their own."""

    name: str
    family: str
    base_url: str
    model: str
    api_key_env: str | None = None
    roles: tuple[str, ...] = ROLES
    input_price: float = 0.0  # per million tokens
    output_price: float = 0.0
    question_temperature: float | None = 1.0
    answer_temperature: float | None = 0.0
    max_tokens: int = 1000
    token_field: str = "max_tokens"  # or max_completion_tokens, which some endpoints want instead
    concurrency: int = 4  # requests in flight
    requests_per_minute: float = math.inf
    timeout_seconds: float = 60.0
    retries: int = 5
    first_wait_seconds: float = 1.0  # before the first retry; doubled for each further one

    def identity(self, role: str) -> dict[str, Any]:
        """What a reply of this model depends on; its name, family, prices and limits are not among it."""
        temperature = self.question_temperature if role == "question" else self.answer_temperature
        return {
            "base_url": self.base_url,
            "model": self.model,
            "temperature": temperature,
            "max_tokens": self.max_tokens,
        }

    def cost(self, input_tokens: float, output_tokens: float) -> float:
        """Price of so many tokens, in the currency of the file.

        >>> Model("a", "f", "http://x/v1", "m", input_price=1.0, output_price=4.0).cost(1_000_000, 500_000)
        3.0
        """
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6

    def api_key(self) -> str | None:
        """The key, from the environment; raises Refusal, which does not show it, if it is missing or no key."""
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "")
        if not key:
            raise Refusal(
                f"model {self.name}: the environment variable {self.api_key_env} is not set; set it to the key"
            )
        if len(key) < _SHORTEST_KEY:
            raise Refusal(
                f"model {self.name}: {self.api_key_env} holds fewer than {_SHORTEST_KEY} characters, which is no key; "
                "leave api_key_env out for an endpoint that needs none"
            )
        if not all("!" <= character <= "~" for character in key):
            raise Refusal(
                f"model {self.name}: {self.api_key_env} holds a space, a line end or a character outside of ASCII, "
                "which no key has; set it again"
            )
        return key


@dataclass(frozen=True)
class Models:
    """What a models file says: its models in their order, and families of further question models by name."""

    models: tuple[Model, ...]
    families: dict[str, str] = field(default_factory=dict)

    def of(self, role: str) -> tuple[Model, ...]:
        """The models that play this role."""
        return tuple(model for model in self.models if role in model.roles)

    def family(self, name: str) -> str | None:
        """The family of the model called `name`; None if the file does not say."""
        known = self.families | {model.name: model.family for model in self.models}
        return known.get(name)


def read_models(path: Path) -> Models:
    """Read a models file; raises Refusal, naming the line where there is one, if any of it is not as described."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"{path}: cannot be read as UTF-8 text ({error}); name a models file with --models") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refusal(f"{path}: not TOML: {error}") from None
    _refuse_unknown(path, document, {"model", "families"}, text, None)
    tables = document.get("model")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise Refusal(f"{path}: holds no model; begin each with a line [[model]]")
    families = document.get("families", {})
    if not isinstance(families, dict) or not all(isinstance(value, str) and value for value in families.values()):
        raise Refusal(f"{path}: [families] must give each name of a question model the name of its family")
    models = tuple(_model(path, table, text, number) for number, table in enumerate(tables))
    _refuse_twins(path, models)
    return Models(models, dict(families))


def _line(text: str, key: str, table: int | None) -> str:
    """`, line N` of `key` in the table-th [[model]] (None: anywhere), or nothing where it is written another way."""
    number = -1
    for line, content in enumerate(text.splitlines(), start=1):
        number += bool(_HEADER.match(content))
        if (table is None or number == table) and re.match(
            rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[=\]]""", content
        ):
            return f", line {line}"
    return ""


def _refuse_unknown(path: Path, table: dict[str, Any], known: set[str], text: str, number: int | None) -> None:
    for key in table:
        if key not in known:
            raise Refusal(
                f"{path}{_line(text, key, number)}: unknown key {key!r}; the keys are {', '.join(sorted(known))}"
            )


def _model(path: Path, table: dict[str, Any], text: str, number: int) -> Model:
    known = {one.name: one for one in fields(Model)}
    _refuse_unknown(path, table, set(known), text, number)
    for name, one in known.items():
        if one.default is MISSING and name not in table:
            raise Refusal(f"{path}: model {number + 1} lacks the key {name!r}")
    values = {}
    for key, value in table.items():
        problem, values[key] = _checked(key, value)
        if problem:
            raise Refusal(f"{path}{_line(text, key, number)}: {key} {problem}")
    return Model(**values)


def _checked(key: str, value: Any) -> tuple[str, Any]:
    """(what is wrong with this value of this key, or nothing; the value as `Model` has it)."""
    if key == "roles":
        good = isinstance(value, list) and value and set(map(str, value)) <= set(ROLES)
        return ("" if good else 'must be a list of "question" and "answer"'), tuple(value) if good else ()
    if key == "token_field":
        return ("" if value in _TOKEN_FIELDS else f"must be one of {', '.join(_TOKEN_FIELDS)}"), value
    if key == "base_url":
        return _url_problem(value), value
    if key == "api_key_env":
        # Capitals alone, so that a key that is put here by mistake is not taken for a name, and shown as one.
        name = isinstance(value, str) and re.fullmatch(r"[A-Z_][A-Z0-9_]*", value)
        return ("" if name else "must be the name, in capitals, of an environment variable, never a key"), value
    if key in ("name", "family", "model"):
        return ("" if isinstance(value, str) and value.strip() else "must be a text that is not empty"), value
    if key.endswith("_temperature"):
        if value == "default":
            return "", None
        return ("" if _is_number(value) and 0 <= value <= 2 else 'must be a number from 0 to 2, or "default"'), value
    return _number_problem(key, value)


def _number_problem(key: str, value: Any) -> tuple[str, Any]:
    if key in ("max_tokens", "concurrency", "retries"):
        least = 0 if key == "retries" else 1
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return ("" if good else f"must be a whole number of at least {least}"), value
    zero_is_fine = key.endswith("_price")
    if not _is_number(value) or value < 0 or (value == 0 and not zero_is_fine):
        return f"must be a finite number {'of at least' if zero_is_fine else 'above'} 0", value
    return "", float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _url_problem(value: Any) -> str:
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        good = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return "must be an address such as https://host/v1"
    if not good or parts is None:
        return "must be an address such as https://host/v1"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "must not hold a user, password or query; keys belong in the environment (api_key_env)"
    return ""


def _refuse_twins(path: Path, models: tuple[Model, ...]) -> None:
    names: set[str] = set()
    identities: dict[str, str] = {}
    for model in models:
        if model.name in names:
            raise Refusal(f"{path}: two models are called {model.name!r}; give one another name")
        names.add(model.name)
        settings = asdict(model)
        identity = repr([settings[key] for key in ("base_url", "model", "question_temperature", "answer_temperature")])
        if identity in identities:
            raise Refusal(
                f"{path}: {model.name!r} and {identities[identity]!r} are the same model of the same endpoint at the "
                "same temperatures, and would share their answers; remove one"
            )
        identities[identity] = model.name
