"""The privacy ledger of a private fit on disk: its DP parameters, the number of steps begun, and the randomness key."""

from __future__ import annotations

import os
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import json_digest, read_json, work_folder, write_json
from medphantom.learning.accounting import DPParameters, guarantee_of
from medphantom.learning.guarantee import Guarantee

KEY_FILE = "privacy.key"
LEDGER_FILE = "privacy.json"
KEY_BYTES = 32


class PrivacyLedger:
    """Records each step before it is taken, so that an interrupted fit never used more steps than are recorded.

    The key is drawn from the operating system once per fit. The drawn units and the noise derive from it, never from
    the recipe's seed: a seed is published, and anyone who knows it could subtract the noise.

    Args:
        work: Folder of the fit.
        parameters: DP parameters of its steps.
        identity: Digest of everything on which the fit depends. Another fit never continues with this key, since
            the difference of two releases would be free of the noise that they share.
    """

    def __init__(self, work: Path, parameters: DPParameters, identity: str) -> None:
        self.work, self.parameters, self.identity = work, parameters, identity
        self.key = ""
        self.steps_begun = 0

    def open(self) -> None:
        """Create a key and an empty ledger before the first step, unless a ledger of the same fit already exists."""
        content, key = self._read()
        same = content is not None and content["terms"] == asdict(self.parameters) and content["fit"] == self.identity
        if key is None or not same:
            key = secrets.token_hex(KEY_BYTES)
            work_folder(self.work)
            _write_key(self.work / KEY_FILE, key)
            write_json(self.work / LEDGER_FILE, self._content(key, 0))

    def resume(self, step: int, saved: dict[str, Any] | None) -> None:
        """Continue after the given number of steps.

        Args:
            step: Number of steps that the current weights have learned from.
            saved: State of the ledger in the checkpoint of that step.

        Raises:
            ArtifactError: If the ledger or its key is missing or belongs to other steps.
        """
        content, key = self._read()
        if content is None or key is None or content["key"] != json_digest(key):
            self._refuse(step, "is missing or damaged")
        other = content["terms"] != asdict(self.parameters) or content["fit"] != self.identity
        if other or content["steps_begun"] < step:
            self._refuse(step, "belongs to other steps")
        if step and saved != self.state(step):
            self._refuse(step, "differs from that in the checkpoint")
        self.key, self.steps_begun = key, content["steps_begun"]

    def record_step(self, step: int, *, write: bool) -> None:
        """Record that a step (from 0) is begun; a step that is repeated after a resume is already recorded."""
        if step < self.steps_begun:
            return
        self.steps_begun = step + 1
        if write:
            write_json(self.work / LEDGER_FILE, self._content(self.key, self.steps_begun))

    def state(self, step: int) -> dict[str, Any]:
        """Return the state of the ledger that a checkpoint stores."""
        return {**asdict(self.parameters), "steps": step}

    def guarantee(self) -> Guarantee | None:
        """Return the guarantee of all steps that were ever begun; ``None`` without noise or before the first step."""
        return guarantee_of(self.parameters, self.steps_begun)

    def _content(self, key: str, steps_begun: int) -> dict[str, Any]:
        return {
            "terms": asdict(self.parameters),
            "fit": self.identity,
            "key": json_digest(key),
            "steps_begun": steps_begun,
        }

    def _read(self) -> tuple[dict[str, Any] | None, str | None]:
        try:
            content = read_json(self.work / LEDGER_FILE)
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
            f"the privacy ledger of the {step} private steps in {self.work} ({LEDGER_FILE}, {KEY_FILE}) {why}",
            f"restore it, or remove {self.work} to start the fit again with a new budget",
        )


def _write_key(path: Path, key: str) -> None:
    """Write the key, readable by its owner only."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(key)
