"""Settings: where they come from, and what is said of those that are wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate.cli import inspection
from tidegate.errors import SettingsError
from tidegate.settings import Settings, in_force


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("TIDEGATE_CHECKPOINTS", "TIDEGATE_MODEL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def sources(**options: str) -> dict[str, tuple[str, str]]:
    return {row.name: (row.value, row.set_by) for row in in_force(Settings.read(**options), **options)}


def test_options_win_over_variables_over_the_file_over_defaults(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "tidegate.toml").write_text(
        'model = "from:file"\ncheckpoints = "file:///from-file"\nrecogniser = "rules"\nmax_rounds = 2\n'
        "[enrichment]\nconcurrency = 2\nattempts = 2\n"
    )
    monkeypatch.setenv("TIDEGATE_MODEL", "from:variable")
    monkeypatch.setenv("TIDEGATE_CHECKPOINTS", "file:///from-variable")
    monkeypatch.setenv("TIDEGATE_ENRICHMENT__CONCURRENCY", "3")
    found = sources(checkpoints="memory:")
    assert found["checkpoints"] == ("memory:", "option")
    assert found["model"] == ("from:variable", "TIDEGATE_MODEL")
    assert found["recogniser"] == ("rules", "tidegate.toml")
    assert found["enrichment.concurrency"] == ("3", "TIDEGATE_ENRICHMENT__CONCURRENCY")
    assert found["enrichment.attempts"] == ("2", "tidegate.toml")
    assert found["summary.attempts"] == ("4", "default")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("modell = 'x:y'", r"^tidegate.toml: the top level has no setting 'modell'; did you mean 'model'\?; `tidegate"),
        (
            "[enrichment]\nconcurency = 3",
            r"^tidegate.toml: enrichment has no setting 'concurency'; did you mean 'concurr",
        ),
        ("[enrichment]\nxyzzy = 3", r"^tidegate.toml: enrichment has no setting 'xyzzy'; `tidegate"),
        (
            "[[trigger]]\nkind = 'folder'\npath = '.'\nsetle = 1",
            r"trigger.0.folder has no setting 'setle'; .*'settle'\?",
        ),
        ("[[trigger]]\nkind = 'folder'\npath = '.'\nname = 'api'", r"a trigger is named 'api'.*another name"),
        ("[[trigger]]\nkind = 'foldr'", r"trigger.0 has to have a kind that is one of 'folder', 's3'"),
        ("[trigger]\nkind = 'folder'\npath = '.'", r"trigger is written once for each, under \[\[trigger\]\]"),
        ("[[trigger]]\nkind = 'folder'", r"tidegate.toml: trigger.0.folder.path is needed, and missing"),
        ("[[summary.fallbacks]]\nmodel = 'a:b'\noption = {}", "has no setting 'option'; did you mean 'options'"),
        ("[enrichment]\nconcurrency = 0", "^tidegate.toml: enrichment.concurrency has to be 1 or more"),
        ("[enrichment]\nconcurrency = 'many'", "enrichment.concurrency has to be a whole number"),
        ("[enrichment]\ntypes = 'LOC'", "enrichment.types has to be a list, as"),
        ("[enrichment]\nwhen_open = 'panic'", "enrichment.when_open has to be 'degrade', 'wait' or 'fail'"),
        ("[enrichment]\nfailure_rate = 50", "enrichment.failure_rate has to be 1 or less"),
        ("enrichment = 3", "enrichment has to be a table of settings"),
        ("[summary]\nbudget = 30", r"budget \(30 s\) is shorter than attempt_timeout \(60 s\)"),
        ("[summary]\nfailure_rate = 0.5\nfailure_rate_calls = 9", "failure_rate_minimum is larger than failure_rate_"),
        ("model = ", "tidegate.toml"),
    ],
)
def test_a_wrong_file_is_refused_by_the_names_of_its_settings(elsewhere: Path, file: str, said: str) -> None:
    (elsewhere / "tidegate.toml").write_text(file)
    with pytest.raises(SettingsError, match=said) as caught:
        Settings.read()
    assert not re.search(r"Value error|Input should|Extra inputs", str(caught.value))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "TIDEGATE_ENRICHMENT__CONCURENCY",
            "3",
            "^TIDEGATE_ENRICHMENT__CONCURENCY: enrichment has no setting 'concurency'",
        ),
        (
            "TIDEGATE_ENRICHMENT",
            '{"concurrency": 0}',
            "^TIDEGATE_ENRICHMENT: enrichment.concurrency has to be 1 or more",
        ),
        ("TIDEGATE_MAX_ROUNDS", "0", "^TIDEGATE_MAX_ROUNDS: max_rounds has to be 1 or more"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=said):
        Settings.read()


def test_settings_are_explained_though_one_is_wrong(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "tidegate.toml").write_text("[enrichment]\nconcurency = 3")
    with pytest.raises(SettingsError, match="concurency"):
        inspection.settings({}, as_json=False)
    told = capsys.readouterr().out
    assert "calls in flight at most" in told
    assert "trigger.folder.settle" in told
    assert "sink.webhook.url" in told


def test_each_trigger_and_sink_is_shown_by_its_name_with_what_it_is_set_to(elsewhere: Path) -> None:
    (elsewhere / "tidegate.toml").write_text(
        "[[trigger]]\nkind = 'folder'\nname = 'drop'\npath = 'inbox'\n"
        "[[trigger]]\nkind = 'webhook'\nsecrets = ['whsec_hunter2']\n"
        "[[sink]]\nkind = 'queue'\nurl = 'amqp://me:hunter2@host'\nqueue = 'results'\n"
    )
    found = sources()
    assert found["trigger.drop.path"] == ("inbox", "tidegate.toml")
    assert found["trigger.drop.settle"] == ("2.0", "default")
    assert found["sink.queue.queue"] == ("results", "tidegate.toml")
    assert found["trigger.webhook.secrets"][0] == found["sink.queue.url"][0] == "(hidden)"
    assert "hunter2" not in str(found)


def test_a_wrong_value_is_not_repeated_since_it_may_be_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ENRICHMENT__HEADERS", '{"Authorization": ["hunter2"]}')
    with pytest.raises(SettingsError) as caught:
        Settings.read()
    assert "hunter2" not in str(caught.value)


def test_secrets_are_hidden_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ENRICHMENT__HEADERS", '{"X-Anything": "hunter2"}')
    monkeypatch.setenv("TIDEGATE_ENRICHMENT__URL", "https://me:hunter2@api.example/v1?key=hunter2")
    monkeypatch.setenv("TIDEGATE_SUMMARY__OPTIONS", '{"api_key": "hunter2", "temperature": 0}')
    found = sources()
    assert "hunter2" not in str(found)
    assert found["summary.options"][0] == "{api_key: (hidden), temperature: 0}"
    assert found["summary.chunk_tokens"][0] == "6000"


def test_every_setting_says_what_it_is_for() -> None:
    assert [row.name for row in in_force(Settings.read()) if not row.description] == []


def test_a_variable_that_is_no_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("TIDEGATE_CHECKPOINT", "TIDEGATE_MODEL__NAME", "TIDEGATE_SUMMARY__BUDGET", "TIDEGATE_TEST_DOCUMENTS"):
        monkeypatch.setenv(name, "90")
    Settings.read()
    assert [record.args for record in caplog.records] == [("TIDEGATE_CHECKPOINT",), ("TIDEGATE_MODEL__NAME",)]


def test_a_malformed_value_inside_a_section_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_ENRICHMENT__HEADERS", "{secret")
    with pytest.raises(SettingsError, match=r"TIDEGATE_ENRICHMENT__HEADERS") as caught:
        Settings.read()
    assert "secret" not in str(caught.value)
