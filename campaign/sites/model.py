"""Sites: where a campaign can run, what part of it, and how its scheduler is spoken to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.home import Home, home_of, versions
from campaign.problems import suggest
from campaign.sites.file import SiteSettings, check_fractions, place_of, read_all

if TYPE_CHECKING:
    from slurm.development import Cluster
    from slurm.scripts import Scheduler


@dataclass(frozen=True)
class Site:
    """A place to run at.

    Parameters
    ----------
    name : `str`
        Small letters and digits.
    fraction : `float` or `None`
        Its share of what is split over sites; `None` takes no part.
    roles : `tuple` [`str`, ...]
        Of archive, construction, processing.
    scheduler : `slurm.scripts.Scheduler` or `None`
        How its Slurm is spoken to; `None`: jobs are processes of this machine (or of ``host``).
    raw_root : `str`
        Folder that the site's raws lie in; empty: where the archive's repository has them.
    repository : `str`
        Folder, label or URI of its Butler repository; empty: the step's own.
    scratch : `str`
        Folder that its nodes can write to, for logs, job scripts and intermediate files; empty: the step's own.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Variables of every job.
    release : `str`
        The version of drp-campaign that is installed there; empty: the same as here.
    transport : `str`
        ``local``: its commands run on this machine; ``ssh``: on ``host``.
    host : `str`
        Where ssh goes to.
    ssh_options : `tuple` [`str`, ...]
        Arguments of ssh before the host.
    python : `str`
        The interpreter of its jobs.
    development : `bool`
        Whether it is a development cluster on this machine.
    """

    name: str
    fraction: float | None = None
    roles: tuple[str, ...] = ()
    scheduler: Scheduler | None = None
    raw_root: str = ""
    repository: str = ""
    scratch: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    transport: str = "local"
    host: str = ""
    ssh_options: tuple[str, ...] = ()
    python: str = sys.executable
    development: bool = False


def plain(site: Site) -> dict[str, Any]:
    """Take a site apart for JSON."""
    return asdict(site)


def from_plain(values: Mapping[str, Any]) -> Site:
    """Make a site of what `plain` gave.

    Raises
    ------
    ConfigurationError
        It is not what `plain` gives.
    """
    from slurm.scripts import Scheduler, ScriptError

    def whole(kind: Callable[..., Any], given: Mapping[str, Any]) -> Any:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})

    try:
        scheduler = values["scheduler"]
        made = whole(Site, {**values, "scheduler": scheduler and whole(Scheduler, scheduler)})
        return TypeAdapter(Site).validate_python(asdict(made))
    except (ValidationError, ScriptError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"not the settings of a site: {why:.300}") from error


def clusters_folder(environment: Mapping[str, str]) -> Path:
    """Where the development clusters are, a folder each: ``$CAMPAIGN_HOME``, else the user's, whatever ``REPO`` is."""
    return home_of(None, environment).path.absolute() / "clusters"


def load(environment: Mapping[str, str], home: Home) -> dict[str, Site]:
    """Load all sites: the packaged files, the operator's over them, and what development clusters fill in.

    Parameters
    ----------
    environment : `~collections.abc.Mapping` [`str`, `str`]
        The operator's variables; ``CAMPAIGN_SITES`` names the folder (or file) of the operator's own site files.
    home : `Home`
        Its ``sites/*.yaml`` are the operator's where ``CAMPAIGN_SITES`` is not set.

    Returns
    -------
    sites : `dict` [`str`, `Site`]
        By name.

    Raises
    ------
    ConfigurationError
        A file is wrong (naming file, line and key), or the fractions do not sum to 1.
    """
    from slurm.development import living

    read = read_all(environment, home)
    check_fractions(read)
    up = {cluster.name: cluster for cluster in living(clusters_folder(environment))}
    sites = {}
    for name, (settings, entry) in read.items():
        if settings.transport == "ssh" and not settings.host:
            raise ConfigurationError(
                "host: transport ssh needs one", where=place_of(entry, ["transport"]), do="host: login.example.org, say"
            )
        site = _site(settings)
        sites[name] = _developed(site, up[name]) if name in up else site
    return sites


def find(sites: Mapping[str, Site], name: str) -> Site:
    """Find a site by its name.

    Raises
    ------
    UsageError
        There is none, and what there is.
    """
    if name not in sites:
        raise UsageError(f"there is no site {name!r}", do=suggest(name, sites))
    return sites[name]


def check_release(sites: Iterable[Site], override: bool = False) -> list[str]:
    """See that sites are said to have this release; give warnings where a difference is overridden.

    Raises
    ------
    SubmissionRefused
        One has another, and ``override`` is not given.
    """
    ours = versions()["drp-campaign"]
    other = [f"{s.name} has drp-campaign {s.release}, this is {ours}" for s in sites if s.release not in ("", ours)]
    if other and not override:
        raise SubmissionRefused("; ".join(other), do="install the same release at both ends, or --override")
    return other


def _site(settings: SiteSettings) -> Site:
    """Make a site of its settings; what the file does not say stays the dataclass's default."""
    given: dict[str, Any] = {key: getattr(settings, key) for key in settings.model_fields_set}
    scheduler = given.pop("scheduler", "none")
    if not given.get("python"):
        given.pop("python", None)
    site = Site(**given)
    return site if isinstance(scheduler, str) else replace(site, scheduler=_scheduler(scheduler, site))


def _scheduler(settings: Any, site: Site) -> Scheduler:
    from slurm.scripts import Scheduler

    given = {key: getattr(settings, key) for key in settings.model_fields_set}
    return Scheduler(**given, environment=dict(site.environment), python=site.python)


def has_own_cluster(site: Site) -> bool:
    """Whether the site's file says where its jobs go, so that no development cluster can stand in."""
    return site.scheduler is None or site.transport == "ssh" or bool(site.scheduler.conf and not site.development)


def _developed(site: Site, cluster: Cluster) -> Site:
    """Fill in what a development cluster knows, and the site's file does not say."""
    if site.scheduler is None or has_own_cluster(site):
        return site
    folder = Path(cluster.folder)
    scheduler = replace(
        site.scheduler,
        conf=cluster.conf,
        node_cores=site.scheduler.node_cores or cluster.cpus,
        node_memory_mib=site.scheduler.node_memory_mib or cluster.memory_mib,
    )
    return replace(
        site,
        scheduler=scheduler,
        repository=site.repository or str(folder / "repo"),
        scratch=site.scratch or str(folder / "scratch"),
        development=True,
    )
