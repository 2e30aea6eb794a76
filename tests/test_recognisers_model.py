"""The spaCy model is used only if all its files are the official ones, and nothing of it runs before that is known."""

from __future__ import annotations

import importlib.util
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.errors import MissingExtra, SettingsError
from tidegate.services.recognisers import RulesRecogniser, SpacyRecogniser, open_recogniser, spacy_model
from tidegate.services.recognisers.spacy_model import check_model, find_model
from tidegate.services.recognisers.with_rules import RULES


@pytest.fixture(scope="module")
def installed() -> Path:
    try:
        return find_model()
    except MissingExtra as missing:
        pytest.skip(str(missing))


@pytest.fixture
def copy(installed: Path, tmp_path: Path) -> Path:
    """A copy of the model, for tampering with."""
    return Path(shutil.copytree(installed, tmp_path / "model"))


@pytest.fixture
def official(copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same copy, installed as the official package, which must never be imported."""
    package = copy.parent / "site" / "en_core_web_sm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the model was imported')")
    folder = Path(shutil.move(copy, package / "en_core_web_sm-3.8.0"))
    monkeypatch.syspath_prepend(str(package.parent))
    importlib.invalidate_caches()
    return folder


@pytest.fixture
def alone(official: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official package as the only model there is."""
    monkeypatch.setattr(spacy_model, "PACKAGES", ("en_core_web_sm",))
    return official


def test_a_sound_copy_is_accepted(copy: Path) -> None:
    check_model(copy)


@pytest.mark.parametrize("name", ["ner/model", "config.cfg", "tokenizer", "vocab/strings.json", "tagger/cfg"])
def test_one_changed_byte_is_refused_and_the_file_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(SettingsError, match=f"{name} is not the official one .*set recogniser to 'rules'"):
        check_model(copy)


def test_a_missing_file_is_refused(copy: Path) -> None:
    (copy / "ner/moves").unlink()
    with pytest.raises(SettingsError, match="ner/moves is missing"):
        check_model(copy)


@pytest.mark.parametrize("name", ["functions.py", "ner/key2row", "vocab/more.bin"])
def test_a_file_more_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_text("import os")
    with pytest.raises(SettingsError, match=f"{name} does not belong there"):
        check_model(copy)


def test_a_linked_folder_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "senter2").symlink_to(tmp_path)
    with pytest.raises(SettingsError, match="senter2 does not belong there"):
        check_model(copy)


def test_what_is_never_read_may_differ_or_be_missing(copy: Path) -> None:
    (copy / "meta.json").write_text("{broken")
    (copy / "README.md").unlink()
    check_model(copy)
    nlp = spacy_model.load_model(copy)
    assert nlp.pipe_names == ["ner"]
    assert [entity.text for entity in nlp("They met Angela Merkel.").ents] == ["Angela Merkel"]


def test_the_official_package_is_found_first_and_not_imported(official: Path) -> None:
    assert find_model() == official


def test_the_copy_is_used_where_the_official_package_is_not_sound(
    official: Path, installed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (official / "config.cfg").unlink()
    assert find_model() == installed
    assert "config.cfg is missing" in caplog.text


def test_another_version_is_not_the_model(alone: Path) -> None:
    alone.rename(alone.with_name("en_core_web_sm-3.7.1"))
    with pytest.raises(SettingsError, match=r"config\.cfg is missing \(expected en_core_web_sm 3\.8\.0\)|is missing"):
        find_model()


def test_a_package_that_hooks_into_spacy_is_refused(alone: Path) -> None:
    info = alone.parent.parent / "en_core_web_sm-3.8.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: en_core_web_sm\nVersion: 3.8.0\n")
    (info / "entry_points.txt").write_text("[spacy_factories]\nner = en_core_web_sm:make\n")
    with pytest.raises(SettingsError, match="spacy_factories is an entry point"):
        find_model()


def test_a_refused_model_is_an_error_if_asked_for_and_a_warning_if_not(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (alone / "ner" / "model").write_bytes(b"other")
    with pytest.raises(SettingsError, match="ner/model is not the official one"):
        open_recogniser("spacy")
    with caplog.at_level(logging.WARNING):
        assert isinstance(open_recogniser("auto"), RulesRecogniser)
    assert "rules alone" in caplog.text
    assert "ner/model" in caplog.text


def test_without_spacy_the_extra_is_named_and_auto_means_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(MissingExtra, match=r"tidegate\[spacy\]"):
        open_recogniser("spacy")
    assert isinstance(open_recogniser("auto"), RulesRecogniser)
    assert isinstance(open_recogniser("rules"), RulesRecogniser)


def test_without_a_model_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spacy_model, "PACKAGES", ("no_such_model",))
    with pytest.raises(MissingExtra, match=r"tidegate\[spacy\]"):
        open_recogniser("spacy")


def test_opening_imports_neither_spacy_nor_the_model(installed: Path) -> None:
    script = (
        "import sys; from tidegate.services.recognisers import open_recogniser; print(open_recogniser().name);"
        "assert not [m for m in sys.modules if m.split('.')[0] in ('spacy', 'thinc') or m.startswith('en_core')]"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == f"spacy/en_core_web_sm-3.8.0+{RULES}"


def test_open_recogniser_prefers_spacy(installed: Path) -> None:
    assert isinstance(open_recogniser("auto"), SpacyRecogniser)
    assert isinstance(open_recogniser("spacy"), SpacyRecogniser)
