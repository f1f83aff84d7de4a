"""A case of an experiment that is not run."""

from dataclasses import dataclass

from sims.store import Result


@dataclass(frozen=True)
class Planted:
    """A case whose result is known."""

    result: Result

    @property
    def fingerprint(self) -> str:
        return self.result.fingerprint
