"""Commands that messages and pages advise, as they can be pasted into a shell."""

from __future__ import annotations

import shlex


def shell_command(*words: object) -> str:
    """Return a command of this program, quoted for a shell.

    Args:
        words: the words after ``attnscope``, such as the name of the command and a path.
    """
    return shlex.join(["attnscope", *map(str, words)])
