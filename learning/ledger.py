"""The account of a private fit on disk: on what terms, how many steps were begun, and the key of its randomness."""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import json_digest, read_json, work_folder, write_json
from medphantom.learning.accounting import DPParameters, PrivacySpent, epsilon_of

KEY_FILE = "privacy.key"
ACCOUNT_FILE = "privacy.json"
KEY_BYTES = 32


class PrivacyLedger:
    """Steps are paid for before they are taken, so that a killed fit has never learned more than it paid for.

    The key is drawn from the operating system once per fit. Which units are drawn and the noise derive from it, never
    from the recipe's seed: a seed is published, and with it the noise could be subtracted.

    Args:
        work: folder of the fit.
        terms: what its steps cost.
        identity: digest of all that the fit depends on; another fit never goes on with this one's key, since the
            difference of two releases would be free of the noise that they share.
    """

    def __init__(self, work: Path, terms: DPParameters, identity: str) -> None:
        self.work, self.terms, self.identity = work, terms, identity
        self.key = ""
        self.steps_begun = 0

    def open(self) -> None:
        """Before the first step: a key and an empty ledger, unless there is one on the same terms already."""
        content, key = self._read()
        same = content is not None and content["terms"] == asdict(self.terms) and content["fit"] == self.identity
        if key is None or not same:
            key = secrets.token_hex(KEY_BYTES)
            work_folder(self.work)
            _write_key(self.work / KEY_FILE, key)
            write_json(self.work / ACCOUNT_FILE, self._content(key, 0))

    def resume(self, step: int, saved: dict[str, Any] | None) -> None:
        """Go on after so many steps.

        Args:
            step: that the weights at hand have learned from.
            saved: what the checkpoint of that step keeps of the ledger.

        Raises:
            ArtifactError: the account or its key is missing, or of other steps.
        """
        content, key = self._read()
        if content is None or key is None or content["key"] != json_digest(key):
            self._refuse(step, "is missing or damaged")
        other = content["terms"] != asdict(self.terms) or content["fit"] != self.identity
        if other or content["steps_begun"] < step:
            self._refuse(step, "is of other steps")
        if step and saved != self.state(step):
            self._refuse(step, "differs from that in the checkpoint")
        self.key, self.steps_begun = key, content["steps_begun"]

    def record_step(self, step: int, *, write: bool) -> None:
        """Note that a step (from 0) is begun; one that is repeated after a resume was paid for already."""
        if step < self.steps_begun:
            return
        self.steps_begun = step + 1
        if write:
            write_json(self.work / ACCOUNT_FILE, self._content(self.key, self.steps_begun))

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps of the ledger."""
        return {**asdict(self.terms), "steps": step}

    def spent(self) -> PrivacySpent:
        """What all steps that were ever begun have cost."""
        mechanism = self.terms.mechanism(self.steps_begun)
        return PrivacySpent(
            epsilon=epsilon_of(mechanism, self.terms.delta),
            epsilon_rdp=epsilon_of(mechanism, self.terms.delta, accountant="rdp"),
            terms=self.terms,
            steps=self.steps_begun,
        )

    def _content(self, key: str, steps_begun: int) -> dict[str, Any]:
        return {
            "terms": asdict(self.terms),
            "fit": self.identity,
            "key": json_digest(key),
            "steps_begun": steps_begun,
        }

    def _read(self) -> tuple[dict[str, Any] | None, str | None]:
        try:
            content = read_json(self.work / ACCOUNT_FILE)
        except ArtifactError:
            content = None
        known = isinstance(content, dict) and set(content) == {"terms", "fit", "key", "steps_begun"}
        try:
            key: str | None = (self.work / KEY_FILE).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            key = None
        return content if known else None, key if key is not None and len(key) == 2 * KEY_BYTES else None

    def _refuse(self, step: int, why: str) -> NoReturn:
        raise ArtifactError(
            f"the account of the {step} private steps in {self.work} ({ACCOUNT_FILE}, {KEY_FILE}) {why}",
            f"restore it, or remove {self.work}: the fit then begins again, with a budget of its own",
        )


def _write_key(path: Path, key: str) -> None:
    """Readable by its owner only."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(key)
