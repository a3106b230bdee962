"""Item 24: products that are damaged on their way home."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import IO

import pytest

from campaign.running.runner import Runner
from campaign.sites.transport import LocalTransport
from tests.campaign.test_federation import federate, gang, holders, make, pixels

#: Runs a command and changes one bit of its output.
NOISE = """
import subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE)
stream = bytearray(done.stdout)
stream[stream.find(b"XTENSION") + 8000] ^= 1
sys.stdout.buffer.write(stream)
sys.exit(done.returncode)
"""


@dataclass(frozen=True)
class Noisy(LocalTransport):
    """A site whose line flips a bit in the first fetches of products."""

    times: int = 1
    fetches: list[Sequence[str]] = field(default_factory=list)

    def start(self, arguments: Sequence[str], log: IO[bytes]) -> Popen[bytes]:
        """Start a command, perhaps behind noise."""
        if arguments[0] == "tar":
            self.fetches.append(arguments)
            if len(self.fetches) <= self.times:
                arguments = [sys.executable, "-P", "-c", NOISE, *arguments]
        return super().start(arguments, log)


@pytest.mark.processes
@pytest.mark.parametrize("times", [1, pytest.param(1000, marks=pytest.mark.soak)], ids=["once", "always"])
def test_item_24_a_bit_flips_on_the_way_home(tmp_path: Path, times: int) -> None:
    """Once: fetched again. Always: that site's products are not wanted any more, the others make them."""
    alone = make(tmp_path / "alone" / "one", gang)
    assert Runner(alone, lambda event: None).run().done
    plan, line = make(tmp_path / "archive", gang), Noisy(times=times)
    outcome, events = federate(plan, {"frdf": line})
    assert outcome.done, outcome
    assert pixels(plan) == pixels(alone)
    sites = {site for site, _ in holders(events).values()}
    assert ("frdf" in sites) is (times == 1)
    assert len(line.fetches) > 1
    if times > 1:
        said = [str(event.detail) for event in events if "damaged on its way" in str(event.detail)]
        assert said and "SHA-256 is" in said[0]
    assert not [p for p in (plan.folder.parent / "products").iterdir() if p.name.startswith(".")]
