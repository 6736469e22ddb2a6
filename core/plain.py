"""Text that only says something: nothing in it steers a terminal, turns the direction of reading, or hides.

Names of files, labels and columns come from data. Whatever is printed passes :class:`PlainStream`, and errors of ours
are plain from the beginning, so that no log and no web page has to think of it.
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
_LEAST_LEFT = 120  # of what was wrong, however long the advice

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
    r"""Text without control sequences, and with a sign in place of every other control character.

    Tabs and ends of lines stay; joiners, which several scripts need within words, do too.

    Example:
        >>> printable("a\x1b[31mb\x07\u202ec")
        'ab\ufffd\ufffdc'
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(STANDS_FOR_A_CONTROL, _SEQUENCES.sub("", text.replace("\r\n", "\n")))


def plain_line(text: str) -> str:
    """Plain text as one line with single spaces."""
    return " ".join(printable(" ".join(text.split())).split())


def error_line(what: str, remedy: str = "", *, longest: int = LONGEST_ERROR - len(PROGRAM)) -> str:
    """What was wrong and what to do as one plain line, cut where it is too long: first what was wrong, in its middle.

    Args:
        what: what was wrong and where.
        remedy: what to do about it.
        longest: characters of the line.
    """
    said, advice = plain_line(what), plain_line(remedy)
    advice = shortened(f"; {advice}" if advice else "", longest - min(len(said), _LEAST_LEFT))
    return shortened(said, longest - len(advice)) + advice


def shortened(text: str, longest: int) -> str:
    """A text whose middle is left out where it is longer than so many characters."""
    if len(text) <= longest:
        return text
    kept = longest - len(CUT)
    tail = kept // 3
    return text[: kept - tail] + CUT + text[len(text) - tail :]


class PlainStream(io.TextIOBase):
    """Writes to another stream what is plain of a text; what that cannot encode is written as escapes.

    Args:
        raw: a stream of text. It has to be asked for by name by whoever steers the terminal himself.
    """

    def __init__(self, raw: TextIO) -> None:
        super().__init__()
        self.raw = raw

    def write(self, text: str) -> int:
        """Write a text; returns its length."""
        plain = printable(text)  # bytes raise a TypeError here, as they must
        try:
            self.raw.write(plain)
        except UnicodeEncodeError:
            code = self.raw.encoding or "ascii"
            self.raw.write(plain.encode(code, "backslashreplace").decode(code))
        return len(text)

    def flush(self) -> None:
        """Flush the stream below."""
        if not self.raw.closed:
            self.raw.flush()

    def close(self) -> None:
        """Leave the stream below open: it is not ours."""

    def fileno(self) -> int:
        """Of the stream below."""
        return self.raw.fileno()

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return self.raw.isatty()

    def writable(self) -> bool:
        """It is."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream below."""
        return self.raw.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """Of the stream below."""
        return self.raw.errors


def raw_stream(stream: TextIO) -> TextIO:
    """The stream below those that only let plain text pass, for bars and colours of our own."""
    while isinstance(stream, PlainStream):
        stream = stream.raw
    return stream


@contextmanager
def plain_output() -> Iterator[None]:
    """Let what is printed in the block, by whichever library, be plain text."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", PlainStream(stream)) for stream in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
