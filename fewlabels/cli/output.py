"""Where the program's words go: any terminal, file or pipe, also one that is closed early."""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback

from fewlabels.errors import FewLabelsError, shorten

CLOSED = 141
"""What a shell reports of a program that its reader ended, as ``head`` does: 128 + SIGPIPE."""
_FIXES = {
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOSPC: "make room",
    errno.EFBIG: "make room, or lift the limit on the size of files",
    errno.EROFS: "choose a place that you may write to",
    errno.EACCES: "choose a place that you may read and write",
    errno.EPERM: "choose a place that you may read and write",
}


def accept_any_text() -> None:
    """A letter that the stream's encoding lacks is printed as ``\\u732b``, and stops nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def flush_output() -> None:
    """Write what is waiting, while an error of it can still be told."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def drop_output() -> bool:
    """Whether nobody reads any more what is printed; the rest then goes nowhere."""
    try:  # a stream that failed has forgotten what it could not write
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def describe_system_error(error: OSError) -> FewLabelsError:
    """The sentence for what the system refuses: a place, room, or permission."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = error.filename or f"{os.path.basename(last.filename)}:{last.lineno}"
    if isinstance(where, bytes):
        where = os.fsdecode(where)
    fix = f"; {_FIXES[error.errno]}" if error.errno in _FIXES else ""
    return FewLabelsError(f"{shorten(str(where))}: {error.strerror or error}{fix}")
