"""Moves files out of a watched folder: no file is overwritten, and at every moment one of the two is whole."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from contextlib import suppress
from itertools import count
from pathlib import PurePosixPath

from tidegate.store.folders import folder_below
from tidegate.triggers.folder.listing import FileChangedError, Signature

_PIECE = 1024 * 1024
_LONGEST_NAME = 255  # bytes
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def move(root: str, path: str, expected: Signature, target: str) -> str:
    """Move a file to the same path below another folder, and return that; a number is added where there is one already.

    If a file with the same content is there, under the name or one with a number, the file is just removed: it was
    moved already, by a process that was killed before it was done, or brought again. Blocks.

    Raises:
        FileChangedError: it has not the signature that is `expected` any more.
        OSError: it cannot be moved; it is where it was.
    """
    *folders, name = path.split("/")
    os.makedirs(target, exist_ok=True)  # noqa: PTH103 - names that are no Unicode
    with folder_below(root, folders) as there, folder_below(target, folders, make=True) as here:
        if Signature.of(_status(there, name)) != expected:
            raise FileChangedError
        names = (name if number == 1 else _numbered(name, number) for number in count(1))
        new_name = next(each for each in names if _place(there, name, here, each))
        os.fsync(here)
        if Signature.of(_status(there, name)) != expected:  # it was replaced meanwhile: that is another document
            raise FileChangedError
        os.unlink(name, dir_fd=there)
        os.fsync(there)
    return "/".join([*folders, new_name])


def _place(there: int, name: str, here: int, new_name: str) -> bool:
    """Have the file at its new place too; False if another file has that."""
    try:
        os.link(name, new_name, src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
    except FileExistsError:
        return _is_same(there, name, here, new_name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    return _copy(there, name, here, new_name)


def _copy(there: int, name: str, here: int, new_name: str) -> bool:
    """Copy the file, by a name that does not count as one; False if another file has its new name."""
    if _exists(here, new_name):
        return _is_same(there, name, here, new_name)
    unfinished = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.{os.getpid()}.part"
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=there)
    with os.fdopen(source, "rb") as old:
        status = os.fstat(source)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
            with os.fdopen(os.open(unfinished, flags, 0o600, dir_fd=here), "wb") as new:
                while piece := old.read(_PIECE):
                    new.write(piece)
                new.flush()
                os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
                os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
                os.fsync(new.fileno())
            return _name(here, unfinished, new_name) or _is_same(there, name, here, new_name)
        finally:
            _remove(here, unfinished)


def _name(folder: int, unfinished: str, name: str) -> bool:
    """Give a file its name; False if another has it."""
    try:
        os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A disk that knows no hard links, as FAT: an empty file of ours holds the name, and is replaced.
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder))
        except FileExistsError:
            return False
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def _is_same(there: int, name: str, here: int, new_name: str) -> bool:
    one, other = _status(there, name), _status(here, new_name)
    if os.path.samestat(one, other):
        return True
    if not stat.S_ISREG(other.st_mode) or one.st_size != other.st_size:
        return False
    return _hash(there, name) == _hash(here, new_name)


def _hash(folder: int, name: str) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _status(folder: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def _exists(folder: int, name: str) -> bool:
    try:
        _status(folder, name)
    except FileNotFoundError:
        return False
    return True


def _remove(folder: int, name: str) -> None:
    with suppress(FileNotFoundError):  # it got its name by a rename
        os.unlink(name, dir_fd=folder)


def _numbered(name: str, number: int) -> str:
    """Return `report (2).pdf`, in at most 255 bytes."""
    pure = PurePosixPath(name)
    suffix = pure.suffix if len(os.fsencode(pure.suffix)) < 30 else ""
    end = os.fsencode(f" ({number}){suffix}")
    stem = os.fsencode(name[: len(name) - len(suffix)])[: _LONGEST_NAME - len(end)]
    return os.fsdecode(stem) + os.fsdecode(end)
