"""Stores, in which sessions outlive their server."""
