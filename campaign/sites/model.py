"""Sites: places where a campaign can run, with their shares, schedulers and folders."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.home import Home, home_of, versions
from campaign.problems import suggest
from campaign.schedulers import development, table
from campaign.schedulers.local import LocalScheduler
from campaign.schedulers.protocol import Backend, Installation, Scheduler
from campaign.sites.file import SiteSettings, check_fractions, place_of, read_all


@dataclass(frozen=True)
class Site:
    """Site where jobs can run.

    Parameters
    ----------
    name : `str`
        Small letters and digits.
    fraction : `float` or `None`
        Share of work that is split over sites; `None` takes no part.
    roles : `tuple` [`str`, ...]
        Any of archive, construction, processing.
    scheduler : `Scheduler`
        By default jobs are processes of this machine (or of ``host``).
    raw_root : `str`
        Folder of the site's raws; empty: that of the archive's repository.
    repository : `str`
        Folder, label or URI of its Butler repository; empty: the step's own.
    scratch : `str`
        Folder for logs, job scripts and intermediate files, writable for its nodes; empty: the step's own.
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Variables of every job.
    release : `str`
        Version of drp-campaign that is installed there; empty: the same as here.
    transport : `str`
        ``local``: its commands run on this machine; ``ssh``: on ``host``.
    host : `str`
        Destination of ssh.
    ssh_options : `tuple` [`str`, ...]
        Arguments of ssh before the host.
    python : `str`
        Interpreter of its jobs.
    development : `bool`
        Whether it is a development cluster on this machine.
    """

    name: str
    fraction: float | None = None
    roles: tuple[str, ...] = ()
    scheduler: Scheduler = field(default_factory=LocalScheduler)
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

    def backend(self, slots: int) -> Backend:
        """Make the backend that runs the site's jobs, given the number of workers that quanta may have."""
        return self.scheduler.backend(Installation(self.name, self.python, self.environment), slots)


def plain(site: Site) -> dict[str, Any]:
    """Convert a site for JSON."""
    shallow = {field.name: getattr(site, field.name) for field in fields(site)}
    return {**shallow, "scheduler": table.plain(site.scheduler)}


def from_plain(values: Mapping[str, Any]) -> Site:
    """Make a site from the result of `plain`.

    Raises
    ------
    ConfigurationError
        The values are not those of a site.
    """
    try:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        given["scheduler"] = table.from_plain(values["scheduler"])
        return TypeAdapter(Site).validate_python(vars(Site(**given)))
    except (ConfigurationError, ValidationError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"not the settings of a site: {why:.300}") from error


def clusters_folder(environment: Mapping[str, str]) -> Path:
    """Give the folder of development clusters: in ``$CAMPAIGN_HOME``, else in the user's home; never in ``REPO``."""
    return home_of(None, environment).path.absolute() / "clusters"


def load(environment: Mapping[str, str], home: Home) -> dict[str, Site]:
    """Load all sites: the packaged files, the operator's over them, and development clusters that are up.

    Parameters
    ----------
    environment : `~collections.abc.Mapping` [`str`, `str`]
        Variables; ``CAMPAIGN_SITES`` names the folder (or file) of the operator's own site files.
    home : `Home`
        Has the operator's files in ``sites/*.yaml`` unless ``CAMPAIGN_SITES`` is set.

    Returns
    -------
    sites : `dict` [`str`, `Site`]
        By name.

    Raises
    ------
    ConfigurationError
        A file is wrong (naming file, line and key), or the fractions do not sum to 1.
    """
    read = read_all(environment, home)
    check_fractions(read)
    up = {cluster.name: cluster for cluster in development.living(clusters_folder(environment))}
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
        There is none; the message suggests one.
    """
    if name not in sites:
        raise UsageError(f"there is no site {name!r}", do=suggest(name, sites))
    return sites[name]


def check_release(sites: Iterable[Site], override: bool = False) -> list[str]:
    """Check that the files of sites name this release; give a warning for each overridden difference.

    Raises
    ------
    SubmissionRefused
        A site has another release, and ``override`` is not given.
    """
    ours = versions()["drp-campaign"]
    other = [f"{s.name} has drp-campaign {s.release}, this is {ours}" for s in sites if s.release not in ("", ours)]
    if other and not override:
        raise SubmissionRefused("; ".join(other), do="install the same release at both ends, or --override")
    return other


def _site(settings: SiteSettings) -> Site:
    """Make a site from its settings; settings that the file does not give keep the dataclass's defaults."""
    given: dict[str, Any] = {key: getattr(settings, key) for key in settings.model_fields_set}
    if not given.get("python"):
        given.pop("python", None)
    return Site(**given)


def has_own_cluster(site: Site) -> bool:
    """Whether the site's file says where its jobs go, so that no development cluster can stand in."""
    return site.transport == "ssh" or (site.scheduler.placed and not site.development)


def _developed(site: Site, cluster: development.Cluster) -> Site:
    """Fill in settings of a development cluster that the site's file does not give."""
    if has_own_cluster(site):
        return site
    folder = Path(cluster.folder)
    return replace(
        site,
        scheduler=development.on(site.scheduler, cluster),
        repository=site.repository or str(folder / "repo"),
        scratch=site.scratch or str(folder / "scratch"),
        development=True,
    )
