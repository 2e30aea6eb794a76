"""Which files of a watched folder are documents, and what they hold."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tidegate.errors import DocumentTooLarge
from tidegate.services.intake import shown
from tidegate.store.file_events import RESULT_SUFFIXES
from tidegate.store.folders import folder_below

_log = logging.getLogger(__name__)

_UNFINISHED = (".part", ".tmp", ".crdownload", ".swp", "~", *RESULT_SUFFIXES)
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Signature:
    """What tells that a file changed, without reading it. `size` is in bytes."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """Take it from what the system says of a file."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class FileChangedError(Exception):
    """The file is not what it was when it was looked at; look again later."""


class FolderListing:
    """The documents in a folder, by path relative to it. Its methods block: call them in a thread, one at a time.

    Links to folders are not followed, links to files where they lead to one inside the folder.
    """

    def __init__(self, root: str, *, recursive: bool, include: tuple[str, ...], but_not: tuple[str, ...]) -> None:
        """List what matches one of `include`, whatever the case, and lies in none of the folders `but_not`."""
        self.root = root
        self._recursive = recursive
        self._include = tuple(pattern.lower() for pattern in include)
        self._but_not = tuple(os.path.realpath(each) for each in but_not)
        real = os.path.realpath(root)
        self._left_out = tuple(each[len(real) :].strip("/") for each in self._but_not if is_below(each, real))
        self._told: set[str] = set()

    def identity(self) -> tuple[int, int] | None:
        """Return what tells the folder from another in its place, None while it cannot be reached."""
        try:
            status = os.stat(self.root)  # noqa: PTH116
            os.close(os.open(self.root, os.O_RDONLY | os.O_DIRECTORY))
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def walk(self, below: str = "") -> Iterator[tuple[str, Signature]]:
        """Yield all documents in the folder, or in one `below` it; parts that cannot be read are left out."""
        folders = [below]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._full(folder)) as entries:
                    names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            except OSError as error:
                if not isinstance(error, FileNotFoundError):
                    self._tell(folder, f"cannot be listed ({error.strerror})")
                continue
            for name, is_folder in names:
                path = f"{folder}/{name}" if folder else name
                if is_folder:
                    if self._recursive and not name.startswith(".") and path not in self._left_out:
                        folders.append(path)
                elif (signature := self._look(path)) is not None:
                    yield path, signature

    def look(self, path: str) -> Signature | None:
        """Return a document's signature, None if there is no document of this path."""
        folder = path.rpartition("/")[0]
        return None if folder and not self.is_folder(folder) else self._look(path)

    def _look(self, path: str) -> Signature | None:
        if not self._is_named_as_one(path):
            return None
        try:
            status = os.lstat(self._full(path))
            if stat.S_ISLNK(status.st_mode):
                if self._inside(path) is None:
                    self._tell(path, "is a link that leads out of the folder, or nowhere")
                    return None
                status = os.stat(self._full(path))  # noqa: PTH116
                if stat.S_ISDIR(status.st_mode):
                    self._tell(path, "is a link to a folder")
                    return None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._tell(path, f"cannot be looked at ({error.strerror})")
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            self._tell(path, "is no regular file")
            return None
        return Signature.of(status)

    def is_folder(self, path: str) -> bool:
        """Say whether this is a folder that counts: neither a link to one, nor below a link."""
        if not self._recursive or any(part.startswith(".") for part in path.split("/")):
            return False
        if any(path == each or is_below(path, each) for each in self._left_out):
            return False
        return os.path.isdir(self._full(path)) and not self.is_link(path)  # noqa: PTH112 - names that are no Unicode

    def is_link(self, path: str) -> bool:
        """Say whether this is a symbolic link, or lies below one."""
        return os.path.realpath(self._full(path)) != os.path.join(os.path.realpath(self.root), path)  # noqa: PTH118

    def read(self, path: str, expected: Signature, *, max_bytes: int) -> bytes:
        """Return what a file holds.

        Raises:
            FileChangedError: it has not the signature that is `expected`, before or after it was read.
            DocumentTooLarge: it has more than `max_bytes` bytes.
            OSError: it cannot be read.
        """
        inside = self._inside(path)
        if inside is None:
            raise FileChangedError
        *folders, name = inside
        with folder_below(self.root, folders) as descriptor:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # opening a pipe would wait for a writer
            with os.fdopen(os.open(name, flags, dir_fd=descriptor), "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode) or Signature.of(status) != expected:
                    raise FileChangedError
                data = bytearray()
                while len(data) <= max_bytes and (piece := file.read(min(_PIECE, max_bytes + 1 - len(data)))):
                    data += piece
                if Signature.of(os.fstat(file.fileno())) != expected:
                    raise FileChangedError
        if max(len(data), expected.size) > max_bytes:
            way_out = "split it, or raise the limit (setting max_document_bytes)"
            raise DocumentTooLarge(shown(path), f"is larger than {max_bytes} bytes", way_out)
        return bytes(data)

    def forget_told(self) -> None:
        """Tell again, from now on, of what is no document and was gone."""
        self._told = {path for path in self._told if os.path.lexists(self._full(path))}

    def _is_named_as_one(self, path: str) -> bool:
        lower = path.rpartition("/")[2].lower()
        if lower.startswith((".", "~$")) or lower.endswith(_UNFINISHED):
            return False
        return any(fnmatchcase(lower, pattern) for pattern in self._include)

    def _inside(self, path: str) -> list[str] | None:
        """Return the names that lead to a file when all links were followed, None if it does not lie in the folder."""
        root = os.path.realpath(self.root)
        real = os.path.realpath(self._full(path))
        if not is_below(real, root) or any(is_below(real, each) for each in self._but_not):
            return None
        return real[len(root) :].strip("/").split("/")

    def _full(self, path: str) -> str:
        return f"{self.root}/{path}" if path else self.root

    def _tell(self, path: str, problem: str) -> None:
        if path not in self._told:
            self._told.add(path)
            _log.warning("%r in folder %s %s; it is ignored", shown(path), self.root, problem)


def is_below(path: str, folder: str) -> bool:
    """Say whether a path, without links, lies below a folder, without links."""
    return path.startswith(folder.rstrip("/") + "/")
