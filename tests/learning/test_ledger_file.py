"""The privacy ledger on disk, without a fit: what is written, when a key is kept, and what is refused."""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from medphantom.core.errors import ArtifactError
from medphantom.core.folders import json_digest
from medphantom.learning.accounting import DPParameters, guarantee_of
from medphantom.learning.ledger import KEY_BYTES, KEY_FILE, LEDGER_FILE, PrivacyLedger

PARAMETERS = DPParameters(noise_multiplier=2.0, sample_rate=0.25, delta=0.01, clip_norm=0.5, draws=3, total_units=8)


def opened(
    work: Path, *, steps: int = 0, parameters: DPParameters = PARAMETERS, identity: str = "fit"
) -> PrivacyLedger:
    """Return a ledger of this many steps."""
    ledger = PrivacyLedger(work, parameters, identity)
    ledger.open()
    ledger.resume(0, None)
    for step in range(steps):
        ledger.record_step(step, write=True)
    return ledger


def written(work: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / LEDGER_FILE).read_text())
    return found


def test_a_ledger_records_parameters_fit_and_steps_and_a_digest_of_its_key(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "deep" / "work", steps=2)
    key = (tmp_path / "deep" / "work" / KEY_FILE).read_text()
    assert ledger.key == key
    assert (KEY_BYTES, len(bytes.fromhex(key))) == (32, 32)
    assert stat.S_IMODE((tmp_path / "deep" / "work" / KEY_FILE).stat().st_mode) == 0o600
    assert written(tmp_path / "deep" / "work") == {
        "terms": asdict(PARAMETERS),
        "fit": "fit",
        "key": json_digest(key),
        "steps_begun": 2,
    }


def test_nothing_is_recorded_before_the_first_step(tmp_path: Path) -> None:
    assert PrivacyLedger(tmp_path, PARAMETERS, "fit").steps_begun == opened(tmp_path).steps_begun == 0


def test_a_step_is_recorded_once_and_a_second_process_writes_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path, steps=3)
    ledger.record_step(1, write=True)  # again, after a resume
    ledger.record_step(2, write=True)
    assert (ledger.steps_begun, written(tmp_path)["steps_begun"]) == (3, 3)
    ledger.record_step(3, write=False)
    assert (ledger.steps_begun, written(tmp_path)["steps_begun"]) == (4, 3)
    ledger.record_step(4, write=True)
    assert written(tmp_path)["steps_begun"] == 5


def test_opening_again_keeps_key_and_steps_with_the_same_parameters_only(tmp_path: Path) -> None:
    first = opened(tmp_path, steps=3)
    again = PrivacyLedger(tmp_path, PARAMETERS, "fit")
    again.open()
    again.resume(0, None)
    assert (again.key, again.steps_begun) == (first.key, 3)
    for parameters, identity in ((replace(PARAMETERS, draws=4), "fit"), (PARAMETERS, "another")):
        before = (tmp_path / KEY_FILE).read_text()
        other = opened(tmp_path, parameters=parameters, identity=identity)
        assert other.key != before
        assert other.steps_begun == 0


@pytest.mark.parametrize("file", [LEDGER_FILE, KEY_FILE])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[1]", b"\xff", b"ab" * 31, b"ab" * 33])
def test_a_damaged_ledger_is_begun_anew_and_never_resumed(tmp_path: Path, file: str, content: bytes | None) -> None:
    before = opened(tmp_path, steps=3).key
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"of the 2 private steps in .* is missing or damaged; restore it"):
        PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(2, PrivacyLedger(tmp_path, PARAMETERS, "fit").state(2))
    anew = opened(tmp_path)
    assert anew.key != before
    assert anew.steps_begun == written(tmp_path)["steps_begun"] == 0


def test_a_key_of_another_fit_is_refused(tmp_path: Path) -> None:
    opened(tmp_path, steps=3)
    (tmp_path / KEY_FILE).write_text("ab" * 32)
    with pytest.raises(ArtifactError, match="is missing or damaged"):
        PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(0, None)


def test_a_ledger_has_as_many_steps_as_the_weights_learned_from_or_more(tmp_path: Path) -> None:
    ledger = opened(tmp_path, steps=3)
    for step in (3, 2):
        resumed = PrivacyLedger(tmp_path, PARAMETERS, "fit")
        resumed.resume(step, ledger.state(step))
        assert resumed.steps_begun == 3
    with pytest.raises(ArtifactError, match=r"of the 4 private steps .* belongs to other steps"):
        PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(4, ledger.state(4))


@pytest.mark.parametrize(("parameters", "identity"), [(replace(PARAMETERS, draws=4), "fit"), (PARAMETERS, "another")])
def test_a_ledger_with_other_parameters_or_of_another_fit_is_refused(
    tmp_path: Path, parameters: DPParameters, identity: str
) -> None:
    opened(tmp_path, steps=3)
    with pytest.raises(ArtifactError, match="belongs to other steps"):
        PrivacyLedger(tmp_path, parameters, identity).resume(0, None)


def test_a_ledger_differs_from_no_checkpoint_of_its_own(tmp_path: Path) -> None:
    ledger = opened(tmp_path, steps=3)
    assert ledger.state(2) == {**asdict(PARAMETERS), "steps": 2}
    for saved in (None, ledger.state(1), {**ledger.state(2), "noise_multiplier": 1.9}):
        with pytest.raises(ArtifactError, match="differs from that in the checkpoint"):
            PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(2, saved)
    PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(0, None)  # before the first step there is none


def test_the_guarantee_is_that_of_all_steps_that_were_begun(tmp_path: Path) -> None:
    ledger = opened(tmp_path, steps=3)
    PrivacyLedger(tmp_path, PARAMETERS, "fit").resume(2, ledger.state(2))
    found = ledger.guarantee()
    assert found is not None
    assert found == guarantee_of(PARAMETERS, 3)
    assert (found.steps, found.draws, found.delta) == (3, 3, 0.01)


def test_without_a_step_nothing_is_guaranteed(tmp_path: Path) -> None:
    assert opened(tmp_path).guarantee() is None
