"""The password of a Prefect server of our own: random, in a file that only its owner can read."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from medphantom.core.errors import InputError, ResourceError
from medphantom.core.folders import no_space_becomes_one_line

PASSWORD_FILE = "password"  # noqa: S105 - a name, not the thing
USER = "medphantom"

_KNOWN = re.compile(rf"{USER}:[A-Za-z0-9_-]{{43}}")
_LONGEST = 200  # bytes; more is no password of ours


def new_password() -> str:
    """Return 256 random bits in the form ``user:password``, which Prefect's settings and pages take as a whole."""
    return f"{USER}:{secrets.token_urlsafe(32)}"


def private_state(state: Path) -> Path:
    """Create the folder of a server, or restrict its permissions, so that only its owner can enter.

    Raises:
        InputError: The folder belongs to somebody else, or is no folder.
        ResourceError: The folder cannot be created.
    """
    with no_space_becomes_one_line(state / PASSWORD_FILE):
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise InputError(f"{state} cannot be a folder: a file is in its way", "choose another --state") from None
        if state.stat().st_uid != os.geteuid():
            raise InputError(f"{state} belongs to another user", "choose another --state")
        if stat.S_IMODE(state.stat().st_mode) & 0o077:
            state.chmod(0o700)
    return state


def load_or_make_password(state: Path) -> str:
    """Return the password of the server whose state is in a folder, and create it if there is none.

    Two processes that call it at the same time get the same password.

    Args:
        state: The folder, prepared by :func:`private_state`.

    Raises:
        InputError: Others can read the file, or it is no password file of ours.
        ResourceError: The file cannot be written.
    """
    file = private_state(state) / PASSWORD_FILE
    if not os.path.lexists(file):
        _write(file, new_password())
    return read_password(state)


def read_password(state: Path) -> str:
    """Return the password of the server whose state is in a folder.

    Raises:
        InputError: There is no password, others can read it, or it is no password of ours.
    """
    file = state / PASSWORD_FILE
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise InputError(f"{file} does not exist", "medphantom serve makes it, or name its folder by --state") from None
    except OSError:
        raise InputError(f"{file} cannot be read as a file of yours", "remove it: the next serve makes one") from None
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise InputError(f"{file} is no file of yours", "remove it: the next serve makes one")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise InputError(
                f"{file} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}), so it protects nothing",
                "remove it, and the next serve makes a new password; or keep the state on a disk that knows modes",
            )
        content = stream.read(_LONGEST).decode("ascii", "replace").strip()
    if not _KNOWN.fullmatch(content):
        raise InputError(f"{file} holds no password that medphantom made", "remove it: the next serve makes one")
    return content


def _write(file: Path, password: str) -> None:
    partial = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    with no_space_becomes_one_line(file):
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as stream:
                stream.write(password + "\n")
            try:
                os.link(partial, file)  # whole or not at all, and never over that of a server that starts beside it
            except FileExistsError:
                return
            except OSError as error:
                raise ResourceError(
                    f"{file.parent} cannot keep a private file ({type(error).__name__})", "choose another --state"
                ) from error
        finally:
            partial.unlink(missing_ok=True)
