"""Collections: runs, calibration collections and chains."""

from __future__ import annotations

from collections.abc import Sequence

from lsst.daf.butler import CollectionType

from campaign.butler.base import Base
from campaign.butler.errors import MissingCollectionError, answers, similar
from campaign.butler.wait import writes
from campaign.errors import ConfigurationError
from campaign.journal import owner
from campaign.journal.owner import Owner


class Collections(Base):
    """Part of a repository: collections."""

    @answers
    def collection_type(self, name: str) -> str | None:
        """Give ``RUN``, ``CHAINED``, ``CALIBRATION`` or ``TAGGED``; `None` where there is no such collection."""
        try:
            kind: CollectionType = self._butler.collections.get_info(name).type
        except MissingCollectionError:
            return None
        return kind.name

    @answers
    def collections(self, pattern: str = "*") -> dict[str, str]:
        """List the collections that match a glob, with their types."""
        found = self._butler.collections.query_info(pattern, include_chains=True)
        return {info.name: info.type.name for info in sorted(found, key=lambda info: info.name)}

    def missing_collections(self, names: Sequence[str]) -> tuple[str, ...]:
        """List the names that are no collections."""
        return tuple(name for name in names if self.collection_type(name) is None)

    def require_collections(self, names: Sequence[str]) -> None:
        """Refuse collections that do not exist.

        Raises
        ------
        ConfigurationError
            Names them, with similar names that exist.
        """
        missing = self.missing_collections(names)
        if not names or missing:
            known = self.collections()
            what = "; ".join(f"unknown collection {name}: {similar(name, known)}" for name in missing)
            raise ConfigurationError(what or "no collection is named", where=self.root)

    @answers
    def flatten(self, names: Sequence[str]) -> tuple[str, ...]:
        """Replace chains by their children, in the order of the search, each collection once."""
        return tuple(self._butler.collections.query(list(names), flatten_chains=True)) if names else ()

    @answers
    def nested(self, names: Sequence[str]) -> tuple[str, ...]:
        """List these collections, chains included, and those in the chains."""
        found = self._butler.collections.query(list(names), flatten_chains=True, include_chains=True)
        return tuple(found)

    @answers
    def chain(self, name: str) -> tuple[str, ...]:
        """List the children of a chain.

        Raises
        ------
        ConfigurationError
            The collection does not exist, or is no chain.
        """
        self.require_collections([name])
        self._require_type(name, CollectionType.CHAINED)
        return tuple(self._butler.collections.get_info(name).children)

    def _require_type(self, name: str, kind: CollectionType) -> None:
        there = self.collection_type(name)
        if there not in (None, kind.name):
            raise ConfigurationError(f"collection {name} exists as {there}, it should be {kind.name}", where=self.root)

    def _register(self, name: str, kind: CollectionType) -> bool:
        self._require_type(name, kind)
        return bool(self._butler.collections.register(name, kind))

    @writes
    def claim_run(self, run: str, doc: str = "") -> bool:
        """Register a RUN; `True` for exactly one caller of all processes.

        Parameters
        ----------
        doc : `str`
            The collection's documentation; see `run_owner`.
        """
        self._require_type(run, CollectionType.RUN)
        return bool(self._butler.collections.register(run, CollectionType.RUN, doc=doc or None))

    @answers
    def run_owner(self, run: str) -> Owner:
        """Read the owner given when a RUN was registered; an empty one where there is no RUN, or no owner."""
        try:
            return owner.parse(str(self._butler.collections.get_info(run).doc or ""))
        except MissingCollectionError:
            return Owner()

    @writes
    def empty_trash(self) -> None:
        """Remove the files of forgotten datasets, which remain if the Butler was killed after forgetting them.

        The Butler never looks at those files again; while they are there, no dataset of the same id can be recorded.
        """
        self._butler._datastore.emptyTrash()

    @writes
    def register_calibration(self, name: str) -> bool:
        """Register a CALIBRATION collection; `True` if that made it."""
        return self._register(name, CollectionType.CALIBRATION)

    @writes
    def ensure_chain(self, name: str, children: Sequence[str] = ()) -> bool:
        """Make a CHAINED collection if it is missing; `True` if that made it.

        An empty chain that should have children was left by a process that was killed between the two steps.
        """
        made = self._register(name, CollectionType.CHAINED)
        if children and not self.chain(name):
            self._butler.collections.redefine_chain(name, list(children))
        return made

    @writes
    def define_chain(self, name: str, children: Sequence[str]) -> None:
        """Replace a chain's children by these, in this order."""
        self.require_collections(children)
        self._register(name, CollectionType.CHAINED)
        self._butler.collections.redefine_chain(name, list(children))

    @writes
    def prepend_chain(self, name: str, children: Sequence[str]) -> None:
        """Put children before the others of a chain; children that are in it already move to the front."""
        self.require_collections(children)
        self._register(name, CollectionType.CHAINED)
        self._butler.collections.prepend_chain(name, list(children))

    @writes
    def chain_output(self, output: str, output_run: str, inputs: Sequence[str]) -> tuple[str, ...]:
        """Put a new RUN in front of its output chain; give the chain.

        As in `pipetask`, a new chain holds the RUN and then the inputs,
        flattened; an existing one only gets the RUN in front.  An empty chain
        was left by a process that was killed between the two steps.
        """
        self._register(output, CollectionType.CHAINED)
        if not self.chain(output):
            others = [name for name in self.flatten(inputs) if name != output_run]
            self._butler.collections.redefine_chain(output, [output_run, *others])
        else:
            self._butler.collections.prepend_chain(output, output_run)
        return self.chain(output)

    @writes
    def require_inputs(self, names: Sequence[str], ticket_chain: str) -> bool:
        """Check a step's input collections; make the ticket-level chain, empty, where it is missing.

        Returns
        -------
        made : `bool`
            Whether the ticket-level chain was made.

        Raises
        ------
        ConfigurationError
            Another collection does not exist; nothing was made.
        """
        others = [name for name in names if name != ticket_chain]
        if others:
            self.require_collections(others)
        return ticket_chain in names and self.ensure_chain(ticket_chain)
