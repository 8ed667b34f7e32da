"""Text from a log as it may stand in a page: nothing in it moves what stands around it.

Escaping is the renderers' business; this is about marks that are no markup: control characters, line ends, and the marks
that turn the direction of writing, which make a title read as something else ("Trojan Source", CVE-2021-42574).
"""

import unicodedata

_JOINERS = frozenset("\u200c\u200d")
_REPLACEMENT = "\ufffd"
LONGEST = 160
"""Characters of a title or a name that are shown."""


def printable(text: str) -> str:
    """The text with line ends and tabs as a space, and U+FFFD for every other character that has no shape of its own.

    Spaces of every width stay, and the joiners of Persian, Indic scripts and emoji.
    """
    if text.isprintable():
        return text
    return "".join(_shown(mark) for mark in text)


def _shown(mark: str) -> str:
    if mark.isprintable() or mark in _JOINERS or unicodedata.category(mark) == "Zs":
        return mark
    return " " if mark.isspace() else _REPLACEMENT


def clipped(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text that is too long to be read, with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}\u2026"
