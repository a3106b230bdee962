"""Variables of the operator's environment that a template asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from campaign.problems import Problem, near
from campaign.template.vocabulary import objection, vocabulary
from templates import ROOT

_BOOTSTRAP = "_BOOTSTRAP"


@dataclass
class Variables:
    """Variables by name, with the packaged fallbacks; remembers requests."""

    #: The operator's variables.
    environment: Mapping[str, str]
    #: Requested variables that are set.
    used: dict[str, str] = field(default_factory=dict)
    #: Requested variables that are not set, with the places of the requests.
    unset: dict[str, list[str]] = field(default_factory=dict)
    #: Guesses, in order.
    warnings: dict[str, None] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        """Give a variable's value; `None` where it is not set."""
        value = self.environment.get(name)
        if value is None:
            value = self._packaged(name) or self._ordinary(name)
        if value is not None:
            self.used[name] = value
        return value

    def missing(self, name: str, where: str) -> None:
        """Remember that ``where`` needs ``name``, which is not set."""
        places = self.unset.setdefault(name, [])
        if where not in places:
            places.append(where)

    def _packaged(self, name: str) -> str | None:
        folder = vocabulary().variables.get(name, {}).get("packaged")
        return str(ROOT / folder) if folder else None

    def _ordinary(self, name: str) -> str | None:
        """Fall back from SELECTION_BIAS_BOOTSTRAP to SELECTION_BIAS, as the worked example of DMTN-222 does."""
        other = name.removesuffix(_BOOTSTRAP)
        value = self.environment.get(other) if name.startswith("SELECTION_") and other != name else None
        if value is not None:
            self.warnings[f"{name} is not set: {other} is taken in its place"] = None
        return value

    def problems(self) -> list[Problem]:
        """List unset variables and unusable values, also of variables that the template does not ask for."""
        return [self._unset(name, places) for name, places in self.unset.items()] + self._unusable()

    def _unset(self, name: str, places: list[str]) -> Problem:
        known = vocabulary().variables
        more = f" (also at {', '.join(places[1:])})" if places[1:] else ""
        if name not in known and (meant := near(name, known, cutoff=0.7)):
            return Problem(f"there is no variable {name}{more}", places[0], f"did you mean {meant}?")
        example = known[name]["example"] if name in known else "..."
        if name.startswith("SELECTION_"):
            example = "\"instrument='...' and exposure.day_obs=...\""
        alike = [other for other in self.environment if other not in known]
        similar = near(name, alike) or (name.removesuffix("_FLAT") if name.removesuffix("_FLAT") in alike else "")
        hint = f" ({similar} is set, but this is not what the template reads)" if similar else ""
        return Problem(f"the variable {name} is not set{more}", places[0], f"export {name}={example}{hint}")

    def _unusable(self) -> list[Problem]:
        found = []
        for name, rule in vocabulary().variables.items():
            value = self.environment.get(name)
            wrong = objection(rule["check"], value) if value is not None else ""
            if wrong and (rule["check"] != "filled" or name in self.used):
                found.append(Problem(f"{name}={value!r} {wrong}", "environment", f"for example {rule['example']}"))
        for name, value in self.used.items():
            if name.startswith("SELECTION_") and not value.strip():
                found.append(Problem(f"{name} is empty: it would select everything", "environment", f"export {name}"))
            if any("\ud800" <= character <= "\udfff" for character in value):
                found.append(Problem(f"{name}={value!r} is not UTF-8", "environment", f"export {name} as UTF-8"))
        return found
