"""BPS templates and the operator's environment become one step's configuration.

All problems of a template are reported at once, each with file and line.
"""

__all__ = ["config", "envfile", "expand", "resolve", "selection", "unmade", "variables", "vocabulary"]
