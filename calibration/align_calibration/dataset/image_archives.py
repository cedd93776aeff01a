"""Images in archives, named as their members."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from align_calibration.dataset.image_files import too_large
from align_calibration.dataset.sample_source import Candidate, Skipped, encode
from align_runtime.archives.opened import Archive, open_archive
from align_runtime.archives.tar_reader import Member
from align_runtime.errors import ConfigurationError, InputError
from align_runtime.image_options import is_image_name


@dataclass(frozen=True)
class ImageArchive:
    """The images in the archive `path`. Links and devices are ignored."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    def candidates(self) -> Iterator[Candidate]:
        with open_archive(self.path, ConfigurationError) as archive:
            for member in archive.members():
                if is_image_name(member.name):
                    yield Candidate(member.name, encode(member.name))


class ZipArchive(ImageArchive):
    """A zip file. Of members with the same name the last counts."""

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        with open_archive(self.path, ConfigurationError) as archive:
            found = {member.name: member for member in archive.members()}
            for name in sorted(found.keys() & set(names)):
                yield name, _content(archive, found[name])


class TarArchive(ImageArchive):
    """A tar file, compressed with gzip or not. Of members with the same name the first counts."""

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes | Skipped]]:
        """In the order of the archive: a step back would decompress it again."""
        wanted = set(names)
        with open_archive(self.path, ConfigurationError) as archive:
            for member in archive.members():
                if member.name in wanted:
                    wanted.remove(member.name)
                    yield member.name, _content(archive, member)


def _content(archive: Archive, member: Member) -> bytes | Skipped:
    reason = None if member.sparse else too_large(member.size)
    if reason is not None:
        return Skipped(member.name, reason)
    try:
        return archive.content(member)
    except InputError as error:
        return Skipped(member.name, error.message)
