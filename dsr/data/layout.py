"""What the data sets of folders have in common: folders that train and test, a folder for each class, text files.

    PATH/train/CLASS/...    PATH/val/CLASS/... (or PATH/test)

``train``, ``val`` and ``test`` may be in upper or lower case. Samples outside the folders of classes are an error, lest
they be left out without a word; notes, archives and what file managers leave behind may lie there.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from pathlib import Path

from dsr.files.errors import DataError

NOTES = (".txt", ".csv", ".json", ".xml", ".md")
"""Files beside samples that are not samples."""
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
"""Which were unpacked into the folders beside them."""
_LEFT_BEHIND = ("Thumbs.db", "desktop.ini", "__MACOSX")
_MOST_NAMED = 5


def is_left_behind(name: str) -> bool:
    """Whether this is the name of a hidden file or folder, or of one that a file manager made for itself."""
    return name.startswith(".") or name in _LEFT_BEHIND


def splits(folder: Path) -> tuple[Path, Path] | None:
    """The folders that train and test: ``train``, and ``val`` or, without it, ``test``.

    Returns
    -------
    tuple of Path, or None
        None where there is no folder of these names.

    Raises
    ------
    DataError
        One of the two is missing, or there are two of one name, such as Train and train.
    """
    found: dict[str, Path] = {}
    for entry in folders(folder):
        name = entry.name.lower()
        if name in ("train", "val", "test") and found.setdefault(name, entry) != entry:
            raise DataError(f"{folder}: expected one folder '{name}', found {found[name].name} and {entry.name}")
    test = found.get("val", found.get("test"))
    if found and ("train" not in found or test is None):
        names = ", ".join(entry.name for entry in found.values())
        raise DataError(f"{folder}: expected the folders 'train' and 'val' (or 'test'), found only {names}")
    return (found["train"], test) if test else None


def class_folders(folder: Path) -> list[Path]:
    """The folders of the classes, sorted by name.

    Raises
    ------
    DataError
        There are none, or a file that may be a sample lies beside them.
    """
    found = folders(folder)
    if not found:
        raise DataError(f"{folder}: expected a folder for each class, found none")
    for file in _files(folder):
        if file.suffix.lower() not in _ARCHIVES:
            raise DataError(f"{file}: expected only folders of classes beside it; move it into one, or remove it")
    return found


def check_no_samples(folder: Path, suffixes: Sequence[str]) -> None:
    """Raise a DataError if files that end like samples lie in a folder that is not that of a class."""
    for file in _files(folder):
        if file.suffix.lower() in suffixes:
            raise DataError(f"{file}: expected it in the folder of a class, like all samples; move or remove it")


def check_classes(folder: Path, names: Sequence[str], others: tuple[Path, Sequence[str]] | None = None) -> None:
    """Raise a DataError unless there are two classes or more, the same ones in both folders."""
    if others and (differ := sorted(set(names) ^ set(others[1]))):
        raise DataError(
            f"{folder.parent}: {folder.name} and {others[0].name} differ in classes: only one has {some(differ)}"
        )
    if len(names) == 1:
        inner = folders(folder / names[0])
        hint = f"; perhaps the classes are the folders in it, such as {inner[0].name}" if inner else ""
        raise DataError(f"{folder}: expected two classes or more, found only '{names[0]}'{hint}")


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones."""
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry for entry in entries if entry.is_dir() and not is_left_behind(entry.name))


def _files(folder: Path) -> Iterator[Path]:
    """The files in a folder that may be samples."""
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir() and not is_left_behind(entry.name) and entry.suffix.lower() not in NOTES:
            yield entry


def decoded(content: bytes, shown: str | Path) -> str:
    """The text of a file: in UTF-8, or in UTF-16 where a byte order mark says so; without the mark.

    Raises
    ------
    DataError
        It is not such a text; the message begins with `shown`.
    """
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{shown}: not a text in UTF-8 ({error})") from None


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
