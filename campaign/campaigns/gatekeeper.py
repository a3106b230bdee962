"""A step's product: shown at its gate, accepted, certified and chained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from campaign.campaigns.decide import Gate, require_products
from campaign.campaigns.document import Campaign
from campaign.campaigns.gate import gate_text
from campaign.campaigns.state import StepState
from campaign.certification.command import run as certify
from campaign.errors import CampaignError
from campaign.home import Home, typed_line
from campaign.journal.books import Books
from campaign.journal.events import Decision


@dataclass
class Gatekeeper:
    """Takes the products of one campaign's steps through their gates and into calibration collections."""

    campaign: Campaign
    home: Home
    books: Books
    #: Accept every gate.
    yes: bool

    say: Callable[[str], None]
    #: Steps that were refused here: they are not tried again.
    refused: set[str] = field(default_factory=set)

    _shown: set[str] = field(default_factory=set)

    def show(self, state: StepState) -> bool:
        """Ask a person to look at a run, once, or accept it unseen; whether it is accepted."""
        if self.yes:
            return self._accept(state)
        if state.run not in self.books.decisions.shown:
            self.books.write(Decision.GATE, state.name, run=state.run, rerun=state.rerun)
        if state.run not in self._shown:
            self._shown.add(state.run)
            for text in gate_text(state, self.home):
                self.say(text)
        return False

    def _accept(self, state: StepState) -> bool:
        """Accept a run unseen, as the operator wants it, unless its products are gone."""
        if state.name in self.refused:
            return False
        gate = Gate(self.campaign.name, state, self.books)
        from campaign.butler.repository import open_repository

        try:
            with open_repository(self.campaign.environment["REPO"]) as repository:
                require_products(gate, self.home, repository)
        except CampaignError as error:
            self._refuse(state, "cannot be accepted", error)
            return False
        self.books.write(Decision.ACCEPTED, state.name, run=state.run, reason="--yes", line=typed_line())
        return True

    def _refuse(self, state: StepState, what: str, error: CampaignError) -> None:
        """Leave a step as it is, and say why."""
        self.refused.add(state.name)
        self.books.write(Decision.FAILED, state.name, error=str(error), run=state.run)
        self.say(f"{state.name:14s} {what}: {error}")

    def certify(self, state: StepState) -> None:
        """Certify and chain an accepted run; one that a killed driver had certified is only noted."""
        name = state.name
        try:
            report = certify(self.campaign.certification(name, state.rerun, state.output_run), again=True)
        except CampaignError as error:
            self._refuse(state, "could not be certified", error)
            return
        target, many = report["certified"]["target"], len(report["certified"]["data_ids"])
        self.books.write(Decision.CERTIFIED, name, run=state.run, target=target, count=many)
        self.say(f"{name:14s} certified into {target}")
