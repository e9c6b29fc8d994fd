"""The files under a folder that could be photos: links, junk, pipes and loops sorted out, nothing opened."""

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from headstart.dataset import IMAGE_SUFFIXES, Skipped
from headstart.errors import DataError
from headstart.files import shown

# Made by operating systems and file managers, never by the owner of the photos; lower case. Names that begin with a
# dot are ignored too: among them .DS_Store, .git and the "._" companions that macOS writes to foreign disks.
JUNK = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information", "@eadir"}
)


@dataclass(frozen=True)
class Tree:
    """What stands under a folder; paths are relative to it, parts joined by "/", sorted by code point.

    Args:
        files: regular files with the suffix of an image, or with none.
        folders: the folders of the two highest levels that were read.
        skipped: everything else, with its reason.
        ignored: number of hidden and junk files and folders.
    """

    files: tuple[str, ...]
    folders: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    ignored: int


def walk(root: Path, *, follow_links: bool = False) -> Tree:
    """List a folder and all folders in it, in time linear in the number of files.

    A link to a file counts as a file where it leads to a place inside `root`. Every real folder is read once, at its
    own place; a link to a folder is followed only where nothing else has read that folder, so a circle ends. What
    leads outside `root` is skipped unless `follow_links`.

    Args:
        root: the folder; it is only read.
        follow_links: also read what links outside `root` point to.

    Raises:
        DataError: `root` itself cannot be read.
    """
    walker = _Walker(root, os.path.realpath(root), follow_links)
    walker.read_tree("")
    while walker.waiting:
        links, walker.waiting = sorted(walker.waiting), []
        for path in links:
            walker.read_tree(path)
    skipped = sorted(walker.skipped, key=lambda item: item.path)
    return Tree(tuple(sorted(walker.files)), tuple(sorted(walker.folders)), tuple(skipped), walker.ignored)


def is_inside(real: str, real_root: str) -> bool:
    """Does a resolved path lie in a resolved folder, or is it the folder itself?

    >>> is_inside("/photos/cat/1.jpg", "/photos"), is_inside("/photos2/1.jpg", "/photos")
    (True, False)
    """
    return real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep)


def kind_of_file(mode: int) -> str:
    """Name what is no regular file, from its `st_mode`."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "not a regular file")


@dataclass
class _Walker:
    root: Path
    real_root: str
    follow_links: bool
    files: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: int = 0
    waiting: list[str] = field(default_factory=list)  # links to folders: after all real ones, so a real place wins
    read: dict[tuple[int, int], str] = field(default_factory=dict)  # device and inode of a folder: where it was read

    def read_tree(self, start: str) -> None:
        """Read a folder and all real folders in it; the stack is a list, as a tree may be deeper than Python's."""
        stack = [start]
        while stack:
            folder = stack.pop()
            try:
                stack += self._read_folder(folder)
            except OSError as error:
                if not folder:
                    raise DataError(f"cannot read the folder {shown(self.root)}: {error.strerror}") from error
                self._skip(folder, "unreadable", error.strerror or "")

    def _read_folder(self, folder: str) -> list[str]:
        place = self.root / folder
        info = place.stat()
        key = (info.st_dev, info.st_ino)
        if key in self.read:
            self._skip(folder, "link", f"the same folder as '{shown(self.read[key] or '.')}'")
            return []
        self.read[key] = folder
        with os.scandir(place) as entries:
            found = list(entries)
        if folder and folder.count("/") < 2:
            self.folders.append(folder)
        return self._sort_out(f"{folder}/" if folder else "", found)

    def _sort_out(self, prefix: str, found: list[os.DirEntry[str]]) -> list[str]:
        """Put each entry of one folder where it belongs; return the folders among them."""
        folders = []
        for entry in found:
            path = prefix + entry.name
            try:
                if entry.name.startswith(".") or entry.name.lower() in JUNK:
                    self.ignored += 1
                elif entry.is_symlink():
                    self._add_link(entry, path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif entry.is_file(follow_symlinks=False):
                    self._add_file(path)
                else:
                    self._skip(path, "not_a_file", kind_of_file(entry.stat(follow_symlinks=False).st_mode))
            except OSError as error:  # it went away meanwhile, or the disk is failing
                self._skip(path, "unreadable", error.strerror or "")
        return folders

    def _add_link(self, entry: os.DirEntry[str], path: str) -> None:
        if not self.follow_links and not is_inside(os.path.realpath(entry.path), self.real_root):
            return self._skip(path, "outside", "a link out of the folder; it is read only with --follow-links")
        try:
            mode = entry.stat().st_mode
        except FileNotFoundError:
            return self._skip(path, "missing", "a link that leads to nothing")
        except OSError as error:
            reason = "link" if error.errno == errno.ELOOP else "unreadable"
            return self._skip(path, reason, error.strerror or "")
        if stat.S_ISDIR(mode):
            return self.waiting.append(path)
        if stat.S_ISREG(mode):
            return self._add_file(path)
        return self._skip(path, "not_a_file", kind_of_file(mode))

    def _add_file(self, path: str) -> None:
        suffix = PurePosixPath(path).suffix.lower()
        if suffix and suffix not in IMAGE_SUFFIXES:
            self._skip(path, "not_an_image", f"suffix {shown(suffix)}")
        else:
            self.files.append(path)

    def _skip(self, path: str, reason: str, detail: str) -> None:
        self.skipped.append(Skipped(path, reason, detail))
