"""Sites: their files, proofs that they work, and transports of commands and files to them."""

__all__ = ["model", "ping", "transport", "up"]
