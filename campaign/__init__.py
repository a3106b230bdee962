"""Everything an operator does: check, submit, look, certify."""
