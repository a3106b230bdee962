"""BPS templates and the operator's environment become one step's configuration.

Every problem of a template is told at once, with its file and line.
"""

__all__ = ["config", "envfile", "expand", "resolve", "selection", "variables", "vocabulary"]
