"""Sequences to train networks on and to try them with: the five tasks of the paper."""
