"""`campaign sites ping`: proves each part of a site by using it."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

from campaign.errors import CampaignError
from campaign.jobs.death import Death
from campaign.jobs.logs import last_words, lines_of
from campaign.limited import from_json
from campaign.release import about, differences
from campaign.schedulers.protocol import Backend, Refused
from campaign.sites.model import Site, from_plain, plain
from campaign.sites.probe import configuration, write_test
from campaign.sites.transport import SshTransport, ask

RANKS = 2
RESOURCES = {"memory_mib": 300, "minutes": 5}
Said: TypeAlias = dict[str, Any]
SETTLE = 5.0
"""Time for a shared file system to show a job's log, second."""


@dataclass(frozen=True)
class Proof:
    """Result of one trial."""

    #: host, scheduler, scratch, job, gang, repository, release or configuration.
    what: str
    #: Whether it succeeded.
    ok: bool
    #: Finding, or the first error.
    found: str
    #: Remedy; empty after success.
    do: str = ""
    #: Whether both ends work, but differ: this can be overridden.
    difference: bool = False


@dataclass(frozen=True)
class Answer:
    """Proofs of a site, and the time that they took, second."""

    site: str
    proofs: tuple[Proof, ...]
    seconds: float


@dataclass(frozen=True)
class _Patience:
    """Time for a job, second, and an event that is set once nobody waits any more."""

    seconds: float
    over: Event


class _Failed(Exception):
    """A proof failed; those that need it are not tried."""

    def __init__(self, what: str, found: str, do: str) -> None:
        super().__init__(found)
        self.proof = Proof(what, False, found, do)


def ping(sites: Sequence[Site], wait: float = 60.0) -> list[Answer]:
    """Prove sites, all at once; failures are proofs too, and not raised.

    Parameters
    ----------
    sites : sequence of `Site`
    wait : `float`
        Time that a site's job may take to start and end, second.
    """
    patience = _Patience(wait, Event())
    with ThreadPoolExecutor(max(1, len(sites))) as pool:
        try:
            return list(pool.map(lambda site: _timed(site, patience), sites))
        except BaseException:  # an operator's ^C: cancel the jobs, and do not wait
            patience.over.set()
            raise


def _timed(site: Site, patience: _Patience) -> Answer:
    begin = time.monotonic()
    prove = _prove_there if site.transport == "ssh" else _prove_here
    proofs, said = prove(site, patience)
    proofs += _agreement(site, said) if said else []
    return Answer(site.name, tuple(proofs), round(time.monotonic() - begin, 2))


def _prove_here(site: Site, patience: _Patience) -> tuple[list[Proof], Said]:
    """Prove a site whose commands run on this machine; without a scratch of its own, runs use the step's."""
    with tempfile.TemporaryDirectory(prefix="campaign-ping-") as spare:
        scratch = os.environ.get("SCRATCH", "")
        if not site.scheduler.queued:  # its jobs are processes here
            return _prove(site, patience, _Places("the step's", scratch or spare))
        return _prove(site, patience, _Places("the step's, $SCRATCH", scratch) if scratch else _Places())


@dataclass(frozen=True)
class _Places:
    """Substitute for a scratch that the site's file does not name, and its owner; empty if there is none."""

    whose: str = ""
    scratch: str = ""


def _prove(site: Site, patience: _Patience, places: _Places) -> tuple[list[Proof], Said]:
    """Prove a site whose commands run on this machine; also give the answer of its job."""
    proofs: list[Proof] = []
    said: Said = {}
    backend = site.backend(RANKS)
    try:
        if site.scheduler.queued:
            proofs.append(_scheduler(backend))
        proofs.append(_scratch(site, places))
        site = site.model_copy(update={"scratch": site.scratch or places.scratch})
        said = _job(site, backend, patience)
        proofs.append(Proof("job", True, f"ran on {said['host']} with {said['python']}"))
        if site.scheduler.queued:
            proofs.append(_gang(site, backend, patience))
    except _Failed as failed:
        proofs.append(failed.proof)
    return (proofs if patience.over.is_set() else [*proofs, _repository(site)]), said


def _scheduler(backend: Backend) -> Proof:
    try:
        return Proof("scheduler", True, backend.ping())
    except Refused as error:
        raise _Failed("scheduler", error.what, error.do) from error


def _scratch(site: Site, places: _Places) -> Proof:
    folder = site.scratch or places.scratch
    if not folder:
        do = f"set scratch in the site file of {site.name}, or export SCRATCH, which its runs use then"
        raise _Failed("scratch", "none is set", do)
    with suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if why := write_test(folder):
        raise _Failed("scratch", f"{folder}: {why}", "set scratch to a folder that you can write to")
    return Proof("scratch", True, site.scratch or f"none of its own: {places.whose}")


def _job(site: Site, backend: Backend, patience: _Patience) -> Said:
    """Run the probe as every job of the site runs; give its answer."""
    said = _run(site, backend, "job", ["campaign.sites.probe", site.scratch], "configuration", patience)
    if said["scratch"]:
        do = "set scratch to a folder that the nodes can write to"
        raise _Failed("job", f"scratch {site.scratch} on {said['host']}: {said['scratch']}", do)
    return said


def _gang(site: Site, backend: Backend, patience: _Patience) -> Proof:
    """Start ranks as every gang does: a wrong launcher silently runs each as a world of one."""
    size = _run(site, backend, "gang", ["kernels.run", "--world"], "size", patience, RANKS)["size"]
    if size != RANKS:
        raise _Failed("gang", f"{RANKS} ranks see a world of {size}", site.scheduler.lone_ranks)
    return Proof("gang", True, f"{RANKS} ranks see each other")


def _run(
    site: Site, backend: Backend, what: str, module: Sequence[str], key: str, patience: _Patience, ranks: int = 1
) -> Said:
    """Run a Python module at the site; give the JSON line with ``key`` that it printed."""
    name = f"ping-{site.name}-{what}-{secrets.token_hex(4)}"
    log = Path(site.scratch) / "ping" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with _ended_in_time(backend, patience) as late:
        try:
            death = backend.job(module, ranks, log, name, RESOURCES, lambda *_: None)
        except (Refused, OSError) as error:
            death = Death(error.what if isinstance(error, Refused) else f"{site.python}: {error.strerror}")
    why = f"it has not ended in {patience.seconds:g} s: {death.why}; cancelled" if late.is_set() else death.why
    said = None if why else _said(log, key, 0.0 if death.code else SETTLE)
    if said is None:
        why = why or last_words(lines_of(log)) or "it said nothing"
        raise _Failed(what, why, f"its script and log are {log.with_suffix('.*')}")
    for file in (log, log.with_suffix(".sh")):
        file.unlink(missing_ok=True)
    return said


@contextmanager
def _ended_in_time(backend: Backend, patience: _Patience) -> Iterator[Event]:
    """Cancel a job once its time is up, or nobody waits any more; the event says that this has happened."""
    ended, late = Event(), Event()

    def watch() -> None:
        until = time.monotonic() + patience.seconds
        while not ended.wait(0.1):
            if patience.over.is_set() or time.monotonic() > until:
                late.set()
                with suppress(CampaignError):
                    backend.cancel()
                return

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield late
    finally:
        ended.set()
        thread.join()


def _said(log: Path, key: str, settle: float) -> Said | None:
    """Find a job's answer in its log, which may appear some seconds late."""
    last = time.monotonic() + settle
    while True:
        for line in reversed(lines_of(log)):
            with suppress(ValueError):
                found = from_json(line)
                if isinstance(found, dict) and key in found:
                    return found
        if time.monotonic() > last:
            return None
        time.sleep(0.2)


def _agreement(site: Site, said: Said) -> Iterator[Proof]:
    """Compare both ends, and the site's file."""
    ours = about()
    version = ours["drp-campaign"]
    other = differences(ours, said["release"])
    other += [f"its file says {site.release}, not {version}"] if site.release not in ("", version) else []
    do = f"install drp-campaign {version} there, or --override" if other else ""
    yield Proof("release", not other, "; ".join(other) or version, do, bool(other))
    here, there = configuration(), str(said["configuration"])
    same = here == there
    found = there[:12] if same else f"the packaged templates differ: {there[:12]}, not {here[:12]}"
    yield Proof("configuration", same, found, "" if same else "install the same files there, or --override", not same)


def _repository(site: Site) -> Proof:
    if not site.repository:
        return Proof("repository", True, "none of its own: the step's")
    from campaign.butler.repository import open_repository

    try:
        with open_repository(site.repository):
            return Proof("repository", True, site.repository)
    except CampaignError as error:
        return Proof("repository", False, str(error).partition("\n")[0], f"set repository of {site.name}")


# Over ssh: the other end proves itself


def _prove_there(site: Site, patience: _Patience) -> tuple[list[Proof], Said]:
    there = site.model_copy(update={"transport": "local", "host": "", "ssh_options": ()})
    question = json.dumps({"site": plain(there), "wait": patience.seconds}).encode()
    transport = SshTransport(site.host, site.environment, site.python, site.ssh_options)
    try:
        text, complaints = ask(
            transport, [*transport.python, "-m", "campaign.sites.ping"], question, patience.seconds + 60
        )
    except OSError as error:
        text, complaints = b"", [str(error)]
    try:
        answer = from_json(text.splitlines()[-1])
        return [Proof("host", True, site.host), *(Proof(**p) for p in answer["proofs"])], dict(answer["said"])
    except (ValueError, LookupError, TypeError):
        why = next((line for line in reversed(complaints) if line.strip()), "it said nothing")
    do = f"see whether `ssh {site.host} {site.python} -m campaign sites` works, without a password"
    return [Proof("host", False, f"{site.host}: {why}", do)], {}


def main() -> None:
    """Answer a ping from elsewhere: the site as JSON on standard input, its proofs as JSON on standard output."""
    question = json.load(sys.stdin)
    proofs, said = _prove(from_plain(question["site"]), _Patience(question["wait"], Event()), _Places())
    print(json.dumps({"proofs": [asdict(proof) for proof in proofs], "said": said}), flush=True)


if __name__ == "__main__":
    main()
