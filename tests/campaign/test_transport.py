"""Commands at a site: by a process here, and over a real sshd."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import pytest

from campaign.errors import ConfigurationError, TransientError
from campaign.sites.transport import LocalTransport, SshTransport, Transport, end, fetch
from tests.campaign import loopback

pytestmark = pytest.mark.processes

#: Words that a shell would make something else of.
WORDS = ["a b", "$HOME", "`id`", "a'; echo foo", '"', "*", "-x", "\\", "a\nb", "é", ""]
SHOW = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ.get('OWN'), os.environ.get('SLURM_JOB_ID')]))"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[loopback.Server]:
    if why := loopback.lacking():
        pytest.skip(why)
    with loopback.server(tmp_path_factory.mktemp("own keys") / "sshd") as found:
        yield found


@pytest.fixture(params=["local", "ssh"])
def transport(request: pytest.FixtureRequest) -> Transport:
    variables = {"OWN": "it's $HOME"}
    if request.param == "local":
        return LocalTransport(variables)
    here: loopback.Server = request.getfixturevalue("server")
    return SshTransport(here.host, variables, sys.executable, here.options)


def test_words_arrive_as_they_are(transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with (tmp_path / "log").open("wb") as log:
        process = transport.start([*transport.python, "-c", SHOW, *WORDS], log)
        said, _ = process.communicate(timeout=30)
    assert json.loads(said) == [WORDS, "it's $HOME", None]


def test_files_are_fetched_by_any_name(transport: Transport, tmp_path: Path) -> None:
    names = ["a b", "-x", "$HOME", "below/it's", "é\n"]
    for number, name in enumerate(names):
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000) * (number * 2000 + 1))
    got: dict[str, bytes] = {}

    def take(name: str, content: IO[bytes]) -> None:
        got[name] = content.read()

    fetch(transport, str(tmp_path / "site"), names, take, tmp_path / "log")
    assert got == {name: (tmp_path / "site" / name).read_bytes() for name in names}
    with pytest.raises(TransientError, match="ended with code"):
        fetch(transport, str(tmp_path / "site"), ["not there"], take, tmp_path / "log")
    assert "not there" in (tmp_path / "log").read_text()


def test_what_was_started_is_ended(transport: Transport, tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with (tmp_path / "log").open("wb") as log:
        process = transport.start([*transport.python, "-c", code], log)
        assert process.stdout
        assert int(process.stdout.readline()) > 0
        end(process)
        process.stdout.close()
    assert process.returncode is not None


@pytest.mark.parametrize("host", ["-oProxyCommand=id", "a b", "a;b", "", "a@b@c", "$HOME"])
def test_a_host_that_is_none_is_refused(host: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a host"):
        SshTransport(host)


@pytest.mark.parametrize("make", [LocalTransport, lambda v: SshTransport("host", v)])
def test_a_variable_that_is_none_is_refused(make: type[LocalTransport]) -> None:
    variables: Mapping[str, str] = {"A B": "x"}
    with pytest.raises(ConfigurationError, match="cannot be the name of a variable"):
        make(variables)
