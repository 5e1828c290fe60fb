"""Options of `fuzzfarm worker` are its settings, in the settings' own words, and none of them is a secret."""

from __future__ import annotations

import pytest
import typer
from pydantic import SecretStr

from fuzzfarm.cli.app import make_app
from fuzzfarm_shared.settings import WorkerHostSettings

GROUP = typer.main.get_command(make_app())
WORKER = GROUP.get_command(typer.Context(GROUP, info_name="fuzzfarm"), "worker")
HELP = {parameter.help: parameter.opts[0] for parameter in WORKER.params}
FIELDS = WorkerHostSettings.model_fields

WITHOUT_OPTION = {
    "redis_url",  # --redis, as everywhere
    "signing_key",
    "result_ttl_s",  # of producers
    "findings_ttl_s",  # all hosts must agree
    "max_payload_bytes",  # all hosts must agree
    "connect_timeout_s",
    "commit_every_s",
    "share_after_s",
    "recordings",  # all workers of a host must agree
}


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - WITHOUT_OPTION))
def test_a_setting_of_workers_has_an_option_that_says_the_same(name: str) -> None:
    assert [option for text, option in HELP.items() if text.startswith(str(FIELDS[name].description).removesuffix("."))]


def test_the_help_shows_the_defaults_of_the_settings() -> None:
    assert {
        "Operations at once in one worker process (50).": "--max-concurrency",
        "Seconds until a silent worker's chunks run again (3.0).": "--lease",
        "Host name shown for this worker.": "--name",
        "Folders that jobs may use, or *; repeat it.": "--allow-root",
    }.items() <= HELP.items()


def test_no_option_takes_a_secret() -> None:
    secrets = {field.description for field in FIELDS.values() if SecretStr in getattr(field.annotation, "__args__", ())}
    assert secrets == {FIELDS["signing_key"].description}
    assert not secrets & HELP.keys()
