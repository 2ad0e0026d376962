"""Errors meant for users, and the one place where they become an exit code."""

import contextlib
import errno
import io
import os
import signal
import sys
import traceback

TRUE_WORDS = ("true", "yes", "on", "1", "t", "y")     # values of BOOL flags
FALSE_WORDS = ("false", "no", "off", "0", "f", "n")


class UserError(Exception):
    """A mistake by the user or in the environment: one line that says what, where, what was given, what is accepted."""

    exit_code = 1


class UsageError(UserError):
    """A command line that cannot be understood or cannot work: exit code 2, as with argparse."""

    exit_code = 2


def run_main(main, argv=None):
    """Run an entry point; turn a UserError, a package that is not installed, or a file that cannot be read or written, into one line on
    stderr and an exit code.

    If the reader of the output has gone (`... | head`), it ends silently with the exit code of SIGPIPE.

    Args:
        main: function taking the list of command-line arguments.
        argv: list of strings; the process's own arguments when None.

    Returns:
        The exit code (int). Any other exception keeps its traceback: it is a bug of ours.
    """
    argv = sys.argv[1:] if argv is None else argv
    _prepare_outputs()
    try:
        code = main(argv) or 0
        sys.stdout.flush()
        return code
    except UserError as error:
        return _report(str(error), error.exit_code, argv)
    except ModuleNotFoundError as error:
        return _report(not_installed(error), 1, argv)
    except OSError as error:
        if error.filename is None and _takes_no_more(sys.stdout):
            silence(sys.stdout)
            return 128 + signal.SIGPIPE if error.errno == errno.EPIPE else _report(f"the output: {error.strerror}", 1, argv)
        if error.filename is None or error.errno is None:
            raise
        return _report(f"{error.filename}: {error.strerror}", 1, argv)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def not_installed(error):
    """What to say of a ModuleNotFoundError."""
    return f"{sys.executable} has no module {error.name}; `pip install -r requirements.txt` installs what is needed"


def _prepare_outputs():
    """Make sure that whatever is printed can be written."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell (`>&-`): the first file opened would get its number
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":  # encodings other than UTF-8 lack characters
        sys.stdout.reconfigure(errors="backslashreplace")


def _takes_no_more(stream):
    """Whether a stream can no longer be written: a closed pipe, a full disk or the like."""
    try:
        print(file=stream, flush=True)
    except OSError:
        return True
    return False


@contextlib.contextmanager
def not_fatal(what):
    """Context of work that a run can do without: an exception in it becomes a one-line warning that begins with `what`."""
    try:
        yield
    except Exception as error:
        print(f"warning: {what}: {one_line(error)}", flush=True)


def one_line(error):
    """An exception as one line for the user, with the name of its class unless the message was written for the user."""
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return f"{name}{error}".splitlines()[0]


def silence(stream):
    """Discard what is written to a broken stream, and what its buffer still holds."""
    with contextlib.suppress(OSError):  # a stream without a file descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _report(message, exit_code, argv):
    if _debug_asked(argv):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return exit_code


def _debug_asked(argv):
    """Whether --debug is given, in any spelling. Works on the raw arguments, since the error may be in the command line itself."""
    asked = False
    for word, following in zip(argv, [*argv[1:], ""]):
        flag, equals, value = word.partition("=")
        if len(flag) > len("--d") and "--debug".startswith(flag):
            asked = (value if equals else following).lower() not in FALSE_WORDS
    return asked
