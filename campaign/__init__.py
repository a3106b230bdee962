"""What an operator does: check, submit, look, certify, go on."""
