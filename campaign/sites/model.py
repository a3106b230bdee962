"""Sites: places where a campaign can run, with their shares, schedulers and folders."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.home import Home, home_of, versions
from campaign.problems import suggest
from campaign.schedulers import table
from campaign.schedulers.local import LocalScheduler
from campaign.schedulers.protocol import Backend, Installation, Scheduler
from campaign.schedulers.values import FilePath
from campaign.sites.file import SiteSettings, check_fractions, place_of, read_all

if TYPE_CHECKING:
    from campaign.schedulers.development import Cluster


class Site(SiteSettings):
    """Site where jobs can run: the settings of its file, with what goes without saying."""

    #: By default jobs are processes of this machine (or of ``host``).
    scheduler: Scheduler = Field(default_factory=LocalScheduler)
    #: Interpreter of its jobs.
    python: FilePath = sys.executable
    #: Whether it is a development cluster on this machine.
    development: bool = False

    def backend(self, slots: int) -> Backend:
        """Make the backend that runs the site's jobs, given the number of workers that quanta may have."""
        return self.scheduler.backend(Installation(self.name, self.python, self.environment), slots)


def plain(site: Site) -> dict[str, Any]:
    """Convert a site for JSON."""
    return {**dict(site), "scheduler": table.plain(site.scheduler)}


def from_plain(values: Mapping[str, Any]) -> Site:
    """Make a site from the result of `plain`.

    Raises
    ------
    ConfigurationError
        The values are not those of a site.
    """
    try:
        return Site(**{**values, "scheduler": table.from_plain(values["scheduler"])})
    except (ConfigurationError, ValidationError, LookupError, TypeError, ValueError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"not the settings of a site: {why:.300}") from error


def clusters_folder(environment: Mapping[str, str]) -> Path:
    """Give the folder of development clusters: in ``$CAMPAIGN_HOME``, else in the user's home; never in ``REPO``."""
    return home_of(None, environment).path.absolute() / "clusters"


def load(environment: Mapping[str, str], home: Home) -> dict[str, Site]:
    """Load all sites, by name: the packaged files, the operator's over them, and development clusters that are up.

    ``CAMPAIGN_SITES`` names the folder (or file) of the operator's own site files, by default ``sites/*.yaml`` of the
    home.

    Raises
    ------
    ConfigurationError
        A file is wrong (naming file, line and key), or the fractions do not sum to 1.
    """
    read = read_all(environment, home)
    check_fractions(read)
    up = _living(clusters_folder(environment))
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
    """Make a site from its settings; an empty interpreter is that of this machine."""
    given = {key: getattr(settings, key) for key in settings.model_fields_set}
    return Site(**{key: value for key, value in given.items() if value or key != "python"})


def has_own_cluster(site: Site) -> bool:
    """Whether the site's file says where its jobs go, so that no development cluster can stand in."""
    return site.transport == "ssh" or (site.scheduler.placed and not site.development)


def _living(folder: Path) -> dict[str, Cluster]:
    """Find the development clusters that are up, by the names of their sites."""
    if not folder.is_dir():
        return {}
    from campaign.schedulers import development

    return {cluster.name: cluster for cluster in development.living(folder)}


def _developed(site: Site, cluster: Cluster) -> Site:
    """Fill in settings of a development cluster that the site's file does not give."""
    from campaign.schedulers import development

    if has_own_cluster(site):
        return site
    folder = Path(cluster.folder)
    filled = {
        "scheduler": development.on(site.scheduler, cluster),
        "repository": site.repository or str(folder / "repo"),
        "scratch": site.scratch or str(folder / "scratch"),
        "development": True,
    }
    return site.model_copy(update=filled)
