"""Training as every stage does it: where a model begins, what prunes it, the loop, what it leaves."""
