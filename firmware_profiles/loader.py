"""Where profiles come from: the files beside this one, or a file that an operator wrote.

Rule of this file: a profile's name is its file's name. A built-in one is read once per
process; a profile is a frozen value.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from firmware_profiles.schema import Profile, ProfileError, read_profile

FILE_BYTES_MAX = 65_536
"""A profile is 3 KiB; what is larger is another file."""
FILES_MAX = 1_000
"""Classes of one site."""
_SUFFIX = ".toml"


@cache
def names() -> tuple[str, ...]:
    """The built-in device classes, sorted."""
    found = (entry.name for entry in files("firmware_profiles").iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


@cache
def load(name: str) -> Profile:
    """A built-in class by name. Raises `ProfileError`."""
    if name not in names():
        raise ProfileError(name, "", f"no such profile; known: {', '.join(names())}")
    source = f"{name}{_SUFFIX}"
    return _read(files("firmware_profiles").joinpath(source).read_bytes(), source)


class Catalogue:
    """The classes that somebody knows: those that are built in, and a site's own. Of one name, the site's."""

    def __init__(self, own: Mapping[str, Profile] | None = None) -> None:
        self._own = own or {}
        self.names = tuple(sorted({*names(), *self._own}))

    def find(self, name: str) -> Profile | None:
        """The class of this name, if it is known."""
        own = self._own.get(name)
        return own or (load(name) if name in names() else None)


def load_directory(directory: Path | None) -> Catalogue:
    """The built-in classes, and every TOML file of a directory. Raises `ProfileError`."""
    if directory is None:
        return Catalogue()
    if not directory.is_dir():
        raise ProfileError(str(directory), "", "no such directory")
    found = sorted(path for path in directory.iterdir() if path.suffix == _SUFFIX)
    if len(found) > FILES_MAX:
        raise ProfileError(str(directory), "", f"{len(found)} files are too many, at most {FILES_MAX}")
    return Catalogue({path.stem: load_file(path) for path in found})


def load_file(path: Path) -> Profile:
    """A class from a file of one's own. Raises `ProfileError`, also where it can't be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ProfileError(str(path), "", error.strerror or str(error)) from error
    return _read(data, str(path))


def _read(data: bytes, source: str) -> Profile:
    if len(data) > FILE_BYTES_MAX:
        raise ProfileError(source, "", f"larger than {FILE_BYTES_MAX} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProfileError(source, "", f"not TOML: {error}") from error
    profile = read_profile(table, source)
    expected = Path(source).name.removesuffix(_SUFFIX)
    if profile.name != expected:
        raise ProfileError(source, "name", f"is {profile.name!r}, the file is {expected!r}")
    return profile
