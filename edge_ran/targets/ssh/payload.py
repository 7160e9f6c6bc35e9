"""What must go to a board for one call: files and folders by their content, and what they are called there."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from edge_ran import files
from edge_ran.errors import InputError
from edge_ran.printable import many
from edge_ran.targets.address import shown_host
from edge_ran.targets.target import Page, Parcel, Result


@dataclass(frozen=True)
class Content:
    """A file that is sent; ``is_folder``: it is an archive to unpack there."""

    file: BinaryIO
    title: str
    size_bytes: int
    is_folder: bool


class Payload:
    """What must go to the device for one call, and what it is called there. Close it: it holds files open."""

    def __init__(self, work: PurePosixPath, pushed: PurePosixPath) -> None:
        self.work, self.pushed = work, pushed
        self.contents: dict[str, Content] = {}  # by SHA-256
        self.links: dict[str, str] = {}
        self.results: list[tuple[PurePosixPath, Result]] = []
        self._here: dict[str, str] = {}

    def __enter__(self) -> Payload:
        return self

    def __exit__(self, *exc: object) -> None:
        for content in self.contents.values():
            content.file.close()

    def file(self, path: Path, place: str) -> PurePosixPath:
        """Take a file along; return its path there, which ends in its own name."""
        content: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            with open(path, "rb") as file:
                shutil.copyfileobj(file, content)  # so that it cannot change between hash and sending
        except OSError as error:
            content.close()
            raise InputError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
        name = self._add(content, path.name, False)
        self.links[f"{place}/{path.name}"] = str(self.pushed / name)
        self._here[str(self.work / place / path.name)] = str(path)
        return self.work / place / path.name

    def folder(self, parcel: Parcel | tuple[str, dict[str, Path]]) -> PurePosixPath:
        """Take files along, a Parcel or a title and the files by name; return the folder there that holds them."""
        if isinstance(parcel, Parcel):
            title = f"{many(len(parcel.files), 'file')} of {parcel.root.name}"
            members = {path.relative_to(parcel.root).as_posix(): path for path in parcel.files}
        else:
            title, members = parcel
        content: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115
        # The same files make the same archive, so that its hash tells whether it is there already.
        try:
            with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, path in sorted(members.items()):
                    archive.writestr(zipfile.ZipInfo(name), files.read_bytes(path) if path.stat().st_size else b"")
        except BaseException:
            content.close()
            raise
        there_ = self.pushed / self._add(content, title, True)
        if isinstance(parcel, Parcel):
            self._here[str(there_)] = str(parcel.root)
        return there_

    def words(self, options: Mapping[str, Any]) -> list[str]:
        """Return the options as words, with everything that lies here taken along."""
        found: list[str] = []
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                found.append(flag if value else flag.replace("--", "--no-", 1))
                continue
            for one in value if isinstance(value, (list, tuple)) else [value]:
                found += [f"{flag}={self._word(one, name)}"]
        return found

    def _word(self, value: Any, name: str) -> str:
        if isinstance(value, Result):
            path = self.work / "out" / name / value.path.name
            self.results.append((path, value))
            return str(path)
        if isinstance(value, Page):
            self._here[f"http://127.0.0.1:{value.port}/"] = f"http://{shown_host(value.host)}:{value.port}/"
            return f"127.0.0.1:{value.port}"
        if isinstance(value, Path) and value.is_dir():
            value = Parcel(value, tuple(sorted(p for p in value.rglob("*") if p.is_file())))
        if isinstance(value, Parcel):
            return str(self.folder(value))
        if isinstance(value, Path):
            return str(self.file(value, name))
        return str(value)

    def local(self, text: str) -> str:
        """Return the text with paths there made into paths here."""
        for path, here in self._here.items():
            text = text.replace(path, here)
        return text

    def _add(self, content: BinaryIO, title: str, folder: bool) -> str:
        content.seek(0)
        digest, size = hashlib.sha256(), 0
        while block := content.read(1 << 20):
            digest.update(block)
            size += len(block)
        name = digest.hexdigest()
        if name in self.contents:
            content.close()
        else:
            self.contents[name] = Content(content, title, size, folder)
        return name
