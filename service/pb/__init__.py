"""Stubs generated from proto/ntm/v1 by `make proto`; never edited."""
