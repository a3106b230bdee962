"""What an operator does with a run: submit, watch, pause, cancel, restart, rerun."""

__all__ = ["cancel", "check", "detach", "drive", "execution", "record", "restart", "single", "submit"]
