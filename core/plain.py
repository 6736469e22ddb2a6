"""Plain text for output: it cannot control a terminal, change the reading direction or contain hidden characters.

Names of files, labels and columns come from data. Everything that is printed passes :class:`PlainStream`, and the
errors of this project are plain from the start, so that logs and web pages need no further checks.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

LONGEST_ERROR = 400  # characters of an error line, with the name of the program before it
PROGRAM = "medphantom: "
STANDS_FOR_A_CONTROL = "\ufffd"
CUT = " … "
_LEAST_LEFT = 120  # characters of the problem, however long the remedy

_SEQUENCES = re.compile(  # ECMA-48: control sequences (5.4), and strings up to their terminator (5.6)
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]|"
    "(?:\x1b[P\\]X^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9b-\x9f\n]*(?:\x07|\x1b\\\\|\x9c)"
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tabs and ends of lines, DEL, C1
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidi, separators, unseen
    "\ud800-\udfff\U000e0000-\U000e0fff]"  # bytes that are no text, and tags
)


def printable(text: str) -> str:
    r"""Return text without control sequences, and with a replacement for every other control character.

    Tabs and line ends are kept, and so are joiners, which several scripts need within words.

    Example:
        >>> printable("a\x1b[31mb\x07\u202ec")
        'ab\ufffd\ufffdc'
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(STANDS_FOR_A_CONTROL, _SEQUENCES.sub("", text.replace("\r\n", "\n")))


def plain_line(text: str) -> str:
    """Return plain text as one line with single spaces."""
    return " ".join(printable(" ".join(text.split())).split())


def error_line(what: str, remedy: str = "", *, longest: int = LONGEST_ERROR - len(PROGRAM)) -> str:
    """Return problem and remedy as one plain line, shortened if too long: the middle of the problem is cut first.

    Args:
        what: What is wrong and where.
        remedy: What to do about it.
        longest: Maximum number of characters of the line.
    """
    said, advice = plain_line(what), plain_line(remedy)
    advice = shortened(f"; {advice}" if advice else "", longest - min(len(said), _LEAST_LEFT))
    return shortened(said, longest - len(advice)) + advice


def shortened(text: str, longest: int) -> str:
    """Return a text whose middle is left out if it has more than ``longest`` characters."""
    if len(text) <= longest:
        return text
    kept = longest - len(CUT)
    tail = kept // 3
    return text[: kept - tail] + CUT + text[len(text) - tail :]


class PlainStream(io.TextIOBase):
    """Writes the plain form of a text to another stream; characters that it cannot encode are written as escapes.

    Args:
        raw: Underlying text stream. Code that controls the terminal must request it explicitly.
    """

    def __init__(self, raw: TextIO) -> None:
        super().__init__()
        self.raw = raw

    def write(self, text: str) -> int:
        """Write a text and return its length."""
        plain = printable(text)  # bytes raise a TypeError here, as they must
        try:
            self.raw.write(plain)
        except UnicodeEncodeError:
            code = self.raw.encoding or "ascii"
            self.raw.write(plain.encode(code, "backslashreplace").decode(code))
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        if not self.raw.closed:
            self.raw.flush()

    def close(self) -> None:
        """Leave the underlying stream open, since it belongs to the caller."""

    def fileno(self) -> int:
        """Return the file descriptor of the underlying stream."""
        return self.raw.fileno()

    def isatty(self) -> bool:
        """Return whether the underlying stream is a terminal."""
        return self.raw.isatty()

    def writable(self) -> bool:
        """Return ``True``: the stream is writable."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the underlying stream."""
        return self.raw.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """The error handler of the underlying stream."""
        return self.raw.errors


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream below all plain-text filters, for progress bars and colours of our own."""
    while isinstance(stream, PlainStream):
        stream = stream.raw
    return stream


@contextmanager
def plain_output() -> Iterator[None]:
    """Make everything that is printed in the block, by any library, plain text."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", PlainStream(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
