"""Settings: where they come from, which wins, and the messages for wrong ones."""

import pytest

from autoscaler.errors import ConfigError
from autoscaler.settings import (
    CONFIG_VARIABLE,
    PlaceSettings,
    ProviderSettings,
    Settings,
    load_settings,
    unknown_variables,
)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch, tmp_path):
    """No settings but those of the test: an empty working directory and none of our variables."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"AUTOSCALER_{name.upper()}", raising=False)
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)


def write(path, text):
    path.write_text(text)
    return path


def failure(**given):
    with pytest.raises(ConfigError) as caught:
        load_settings(**given)
    return str(caught.value)


def test_without_anything_the_defaults_hold():
    settings = load_settings()
    assert (settings.tick_s, settings.http_host, settings.http_port) == (10.0, "127.0.0.1", 9412)
    assert settings.aws_secret_access_key is None


def test_command_line_over_environment_over_file_over_defaults(monkeypatch, tmp_path):
    write(tmp_path / "autoscaler.toml", 'tick_s = 20\nhttp_port = 1\nlog_level = "debug"\n')
    monkeypatch.setenv("AUTOSCALER_TICK_S", "30")
    monkeypatch.setenv("AUTOSCALER_HTTP_PORT", "2")
    settings = load_settings(tick_s=40.0, http_port=None)
    assert (settings.tick_s, settings.http_port, settings.log_level) == (40.0, 2, "debug")
    assert settings.retention_days == 30.0


def test_the_environment_names_another_file(monkeypatch, tmp_path):
    write(tmp_path / "autoscaler.toml", "tick_s = 20\n")
    other = write(tmp_path / "other.toml", "tick_s = 25\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(other))
    assert load_settings().tick_s == 25


def test_a_named_file_must_exist(monkeypatch):
    monkeypatch.setenv(CONFIG_VARIABLE, "nowhere.toml")
    assert failure() == "AUTOSCALER_CONFIG names nowhere.toml, which does not exist"


def test_an_unknown_key_is_refused_with_those_that_are_known(tmp_path):
    write(tmp_path / "autoscaler.toml", "tik_s = 20\n")
    words = failure()
    assert words.startswith("autoscaler.toml: tik_s is not a setting; did you mean tick_s? Known are: ")
    assert all(name in words for name in Settings.model_fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tick_s = 0.5", "setting tick_s: input should be greater than or equal to 1"),
        ('tick_s = "fast"', "setting tick_s: input should be a valid number"),
        ("http_port = 70000", "setting http_port: input should be less than or equal to 65535"),
        ('log_format = "xml"', "setting log_format: input should be 'console' or 'json'"),
    ],
)
def test_a_bad_value_says_which_why_and_where_it_may_be_set(text, words, tmp_path):
    write(tmp_path / "autoscaler.toml", text)
    name = text.split(maxsplit=1)[0]
    said = failure()
    assert said.startswith(words)
    assert said.endswith(f"(in autoscaler.toml or AUTOSCALER_{name.upper()})")


EMPTY = (
    "aws_access_key_id", "aws_cloudwatch_endpoint_url", "aws_endpoint_url", "aws_hint_queue_url", "aws_profile",
    "aws_secret_access_key", "control_socket", "push_token_file",
)  # fmt: skip


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_text_is_as_good_as_none(name, tmp_path, monkeypatch):
    """All settings that may be without a value: the shipped file shows them as empty."""
    assert set(EMPTY) == {each for each, field in Settings.model_fields.items() if field.default is None}
    write(tmp_path / "autoscaler.toml", f'{name} = ""\n')
    assert getattr(load_settings(), name) is None
    monkeypatch.setenv(f"AUTOSCALER_{name.upper()}", "")
    assert getattr(load_settings(), name) is None


@pytest.mark.parametrize("name", ["aws_endpoint_url", "aws_cloudwatch_endpoint_url", "aws_hint_queue_url"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("localhost:4599", "this is no address; write for example http://127.0.0.1:4599"),
        ("http://", "this is no address"),
        ("http://h:port", "this is no address"),
        ("ftp://h", "this is no address"),
        ("https://me:s3cret@proxy", "an address with a user or password in it would be logged"),
    ],
)
def test_an_address_that_is_none_is_refused_and_no_password_is_told(name, text, words):
    said = failure(**{name: text})
    assert said.startswith(f"setting {name}: {words}")
    assert "s3cret" not in said
    assert getattr(load_settings(**{name: "https://sqs.example/1/q"}), name) == "https://sqs.example/1/q"


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    write(tmp_path / "autoscaler.toml", "tick_s = 0\nhttp_port = -1\nnonsense = 1\n")
    assert len(failure().splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tick_s: 20\n", "expected '=' after a key in a key/value pair (line 1, column 7)"),
        (
            "tick_s = 1\ntick_s = 2\n",
            "a setting or table occurs twice; keep one of them (line 2, column 11)",
        ),
        (
            "[providers.a]\n[providers.b]\n[providers.a]\n",
            "a setting or table occurs twice; keep one of them (line 3, column 13)",
        ),
        ("log_level = debug\n", 'there is no valid value after "="; texts need quotes (line 1, column 13)'),
    ],
)
def test_a_file_that_is_not_toml_is_refused(text, words, tmp_path):
    write(tmp_path / "autoscaler.toml", text)
    assert failure() == f"autoscaler.toml is not TOML: {words}"


def test_a_file_that_cannot_be_read_is_refused_in_words(tmp_path):
    write(tmp_path / "autoscaler.toml", "").write_bytes(b"tick_s = 20\n# \xff\n")
    assert failure() == "autoscaler.toml: the text is not UTF-8 (line 2); save it as UTF-8"


def test_a_table_in_the_environment_that_is_no_json_is_refused_in_words(monkeypatch):
    monkeypatch.setenv("AUTOSCALER_PROVIDERS", "frankfurt")
    assert failure() == (
        "AUTOSCALER_PROVIDERS cannot be read: it is a table, which must be JSON in the environment; it is easier to write it in "
        "autoscaler.toml, as [providers.NAME]"
    )


def test_a_secret_is_in_no_text(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOSCALER_AWS_SECRET_ACCESS_KEY", "hush-hush")
    settings = load_settings()
    assert settings.aws_secret_access_key.get_secret_value() == "hush-hush"
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump())):
        assert "hush" not in text
    write(tmp_path / "autoscaler.toml", 'aws_secret_access_key = ["hush-hush"]\n')
    monkeypatch.delenv("AUTOSCALER_AWS_SECRET_ACCESS_KEY")
    assert "hush" not in failure()


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().tick_s = 5


def test_every_setting_is_described():
    assert all(len(field.description or "") > 10 for field in Settings.model_fields.values())


def test_what_says_where_vms_are_is_declared_once_for_one_place_and_for_several():
    names = set(PlaceSettings.model_fields)
    assert names == set(ProviderSettings.model_fields)
    assert names < set(Settings.model_fields)
    assert not names & {
        *vars(Settings).get("__annotations__", {}),
        *vars(ProviderSettings).get("__annotations__", {}),
    }


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_one():
    names = [
        "AUTOSCALER_TICKS_S", "AUTOSCALER_CONFIG", "AUTOSCALER_TICK_S", "autoscaler_http_port", "HOME",
        "AUTOSCALER_XYZZY",
    ]  # fmt: skip
    assert unknown_variables(names) == (
        "AUTOSCALER_TICKS_S is not a setting and has no effect; did you mean AUTOSCALER_TICK_S?",
        "AUTOSCALER_XYZZY is not a setting and has no effect; see the settings in README.md",
    )
