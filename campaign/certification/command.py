"""`campaign certify`: names from a template or the command line, and the data IDs that the plan asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from campaign.certification.certify import (
    CertifyReport,
    ChainReport,
    Change,
    certify,
    chain,
    check_chain,
    newest_run,
    overlap,
    validity_range,
)
from campaign.errors import ConfigurationError, SubmissionRefused, UsageError
from campaign.home import Home, home_of
from campaign.killpoints import reach
from campaign.wording import command

if TYPE_CHECKING:
    from campaign.butler.repository import Repository
    from campaign.template.config import StepConfig

#: What `request` takes of an operator who chooses nothing.
UNCHOSEN: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("repo", "source", "target", "dataset_type", "begin_date", "end_date", "chain_name")),
    **dict.fromkeys(("search_all_inputs", "no_chain", "yes", "deploy"), False),
    "mode": "prepend",
}


@dataclass(frozen=True)
class Certification:
    """One certification: its source, target, validity and chain.

    ``template`` is the one whose output is the source; empty where an operator named the source.
    """

    repository: str
    home: Home
    ticket: str
    source: str
    target: str
    dataset_type: str
    begin: str | None
    end: str | None
    search_all_inputs: bool
    chain: str | None
    how: Change
    template: str = ""


def by_template(config: StepConfig, environment: Mapping[str, str], target: str | None = None) -> dict[str, Any]:
    """Build names as in DMTN-222: ``.../biasGen.$RERUN`` becomes ``.../bias.$CERT_RERUN``.

    Parameters
    ----------
    config : `StepConfig`
        The resolved template.
    environment : `dict`
        Variables.
    target : `str`, optional
        Name that the operator has chosen; the one built here needs CERT_RERUN.

    Raises
    ------
    ConfigurationError
        The pipeline cannot be read, or CERT_RERUN is not set.
    """
    from campaign.kinds.table import dataset_types
    from campaign.pipeline import model as pipelines
    from campaign.pipeline.makers import product_of

    pipeline = pipelines.load(config.pipeline_yaml, config.instrument, environment, config.pipeline_options)
    folder, _, name = config.output.rpartition("/")
    stem, product = name.split(".")[0].replace("Gen", ""), product_of(pipeline)
    known = dataset_types().get(product)
    if known and not known.calibration:
        what, do = f"{product} is no calibration, there is nothing to certify", "certify a template that makes one"
        raise ConfigurationError(what, where=config.pipeline_yaml, do=do)
    stem = product if product.startswith(stem) else stem  # defectGen becomes defects
    cert_rerun = environment.get("CERT_RERUN")
    if not cert_rerun and not target:
        raise ConfigurationError(
            "the variable CERT_RERUN is not set", do="export CERT_RERUN=20250207a, or give --target"
        )
    prefix = config.variables.get("USER_CALIB_PREFIX", "")
    return {
        "repository": config.butler_config,
        "ticket": config.ticket,
        "source": config.output,
        "target": target or f"{folder}/{stem}.{cert_rerun}",
        "dataset_type": product,
        "chain": f"{prefix}{config.instrument}/calib/{config.ticket}",
    }


def ticket_of(collection: str) -> str:
    """Find the ticket in the name of a calibration collection: the part after ``<instrument>/calib/``."""
    return collection.partition("/calib/")[2].split("/")[0]


def begin_of(said: str | None, environment: Mapping[str, str]) -> str:
    """Choose the beginning of a validity: the one given, else ``START_DATE``.

    Raises
    ------
    ConfigurationError
        Neither is set.
    """
    begin = said or environment.get("START_DATE")
    if not begin:
        raise ConfigurationError(
            "the variable START_DATE is not set", do="export START_DATE=2025-02-07T00:00:00, or give --begin-date"
        )
    return begin


def request(
    template: str | None,
    environment: Mapping[str, str],
    chosen: Mapping[str, Any],
    overrides: Mapping[str, Any] = MappingProxyType({}),
) -> Certification:
    """Make the request of a certification; ``overrides`` are template keys that were set at submission.

    Raises
    ------
    UsageError
        A name is neither given nor known.
    ConfigurationError
        A variable is not set.
    """
    names: dict[str, Any] = {"chain": None}
    if template:
        from campaign.template.resolve import resolve

        names = by_template(resolve(template, environment, overrides), environment, chosen["target"])
    given = {"repository": chosen["repo"], "chain": chosen["chain_name"]}
    given |= {key: chosen[key] for key in ("source", "target", "dataset_type")}
    names |= {key: value for key, value in given.items() if value}
    lacking = [key for key in ("repository", "source", "target", "dataset_type") if not names.get(key)]
    if lacking:
        flags = {"repository": "--repo", "dataset_type": "--type"}
        raise UsageError(
            f"missing {', '.join(flags.get(key, f'--{key}') for key in lacking)}",
            do="or name the template that was submitted",
        )
    if chosen["no_chain"]:
        names["chain"] = None
    names.setdefault("ticket", ticket_of(names["target"]))
    return Certification(
        home=home_of(names["repository"], environment),
        begin=begin_of(chosen["begin_date"], environment),
        end=chosen["end_date"],
        search_all_inputs=chosen["search_all_inputs"],
        how=Change(chosen["mode"], chosen["yes"], chosen["deploy"]),
        template="" if chosen["source"] else template or "",
        **names,
    )


def expected(repository: Repository, home: Home, source: str, dataset_type: str) -> list[Mapping[str, Any]]:
    """List the data IDs, in part, that the newest RUN of ``source`` was to make; none where no run of ours made it."""
    run = newest_run(repository, source) or source
    entries = [e for e in home.runs() if e["output_run"] == run and e["product"] == dataset_type]
    return [{"detector": d} for d in entries[-1]["detectors"]] if entries else []


def _require_made(repository: Repository, wanted: Certification) -> None:
    """Say that a template was not submitted yet, or that its run has made nothing."""
    if not wanted.template or repository.collection_type(wanted.source):
        return
    runs = [entry for entry in wanted.home.runs() if entry["output"] == wanted.source]
    if runs:
        run = runs[-1]["run"]
        raise ConfigurationError(
            f"nothing is made yet of {wanted.template}: run {run} has published nothing into {wanted.source}",
            do=f"{command('status', run)} shows how it stands",
        )
    stem = f"{wanted.source.rpartition('.')[0]}."
    others = sorted(
        name.removeprefix(stem) for name in repository.collections(f"{stem}*") if "/" not in name[len(stem) :]
    )
    raise ConfigurationError(
        f"nothing is submitted yet of {wanted.template}: there is no {wanted.source}",
        do=command("submit", wanted.template) + (f"; submitted was RERUN {', '.join(others)}" if others else ""),
    )


def _certified_before(repository: Repository, wanted: Certification, number: int) -> CertifyReport | None:
    """List the target's datasets, where they are exactly those of the source's newest RUN."""
    if not repository.collection_type(wanted.target):
        return None
    newest = newest_run(repository, wanted.source) or wanted.source
    links = repository.associations(wanted.dataset_type, [wanted.target])
    if len(links) < max(number, 1) or {link.run for link in links} != {newest}:
        return None
    if {(link.begin, link.end) for link in links} != {validity_range(wanted.begin, wanted.end)}:
        return None
    ids = tuple(link.data_id for link in links)
    return CertifyReport(wanted.dataset_type, (links[0].run,), wanted.target, ids, links[0].begin, links[0].end)


def _require_newest(repository: Repository, wanted: Certification) -> None:
    """Refuse to put calibrations in front of newer ones: an old campaign that catches up would undo another.

    The age of datasets that no run of this home made is unknown.
    """
    assert wanted.chain is not None
    if wanted.how.yes or not repository.collection_type(wanted.chain):
        return
    # Places in the home's list of runs; clocks are not compared.
    made = {entry["output_run"]: number for number, entry in enumerate(wanted.home.runs(), 1)}
    source = newest_run(repository, wanted.source) or wanted.source
    others = [name for name in repository.flatten([wanted.chain]) if name != wanted.target]
    if source not in made or not others:
        return
    own = [dict(one.data_id) for one in repository.datasets(wanted.dataset_type, [source])]
    dates = validity_range(wanted.begin, wanted.end)
    for link in repository.associations(wanted.dataset_type, others):
        hidden = dict(link.data_id) in own and overlap((link.begin, link.end), dates)
        if hidden and made.get(link.run, 0) > made[source]:
            raise SubmissionRefused(
                f"{source} was made before {link.run}, which is found in {link.collection}: it would hide that",
                where=wanted.chain,
                do="--yes puts the older one in front all the same; --no-chain only certifies it",
            )


def _chained(repository: Repository, wanted: Certification) -> bool:
    """Whether the target is already in its chain, by an earlier command or by hand."""
    chain = wanted.chain
    return chain is None or (bool(repository.collection_type(chain)) and wanted.target in repository.chain(chain))


def _noted(wanted: Certification, report: CertifyReport) -> bool:
    """Whether the history lists the certification: a command that was killed did not get so far."""
    mine = {"from": ", ".join(report.sources), "into": report.target, "type": report.dataset_type}
    said = (line["detail"] for line in wanted.home.history() if line["command"] == "certify")
    return any(mine.items() <= detail.items() and detail.get("chain") == wanted.chain for detail in said)


def _plain(report: CertifyReport) -> dict[str, Any]:
    return asdict(report) | {"data_ids": [dict(d) for d in report.data_ids]}


def _certified(
    repository: Repository, wanted: Certification, again: bool
) -> tuple[CertifyReport, ChainReport | None, bool]:
    """Certify and chain, as one decision (see `Repository.deciding`); also tell whether nothing had to change."""
    _require_made(repository, wanted)
    asked: Sequence[Mapping[str, Any]] = ()
    if not wanted.search_all_inputs:
        asked = expected(repository, wanted.home, wanted.source, wanted.dataset_type)
    report = _certified_before(repository, wanted, len(asked))
    set_already = report is not None and _chained(repository, wanted)
    if report and _noted(wanted, report):
        if again and set_already:
            return report, None, True
        report = report if again else None  # a person is refused, and told why
    to_chain = wanted.chain if not (report and set_already) else None
    if to_chain:  # before anything is changed
        check_chain(repository, to_chain, [wanted.target], wanted.how)
        _require_newest(repository, wanted)
    reach("certify-decided")
    report = report or certify(
        repository,
        source=wanted.source,
        target=wanted.target,
        dataset_type=wanted.dataset_type,
        begin=wanted.begin,
        end=wanted.end,
        search_all_inputs=wanted.search_all_inputs,
        expected=asked,
    )
    reach("certified")
    return report, chain(repository, to_chain, [wanted.target], wanted.how) if to_chain else None, False


def run(wanted: Certification, again: bool = False) -> dict[str, Any]:
    """Certify and chain.

    ``again`` accepts an identical certification.  For a person who gives the command twice it is an error, unless the
    first command was killed: then the second does the rest, the chain or the history.

    Raises
    ------
    ConfigurationError, SubmissionRefused
        See `campaign.certification.certify`; nothing was changed.
    """
    from campaign.butler.repository import open_repository

    with open_repository(wanted.repository, writeable=True) as repository, repository.deciding():
        report, chained, known = _certified(repository, wanted, again)
    if known:
        return {"certified": _plain(report), "chain": None}
    wanted.home.record(
        "certify",
        wanted.ticket,
        {
            "from": ", ".join(report.sources),
            "into": report.target,
            "type": report.dataset_type,
            "count": len(report.data_ids),
            "begin": report.begin,
            "end": report.end,
            "chain": wanted.chain,
            "mode": wanted.how.mode,
        },
    )
    return {"certified": _plain(report), "chain": asdict(chained) if chained else None}
