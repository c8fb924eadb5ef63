"""Authentication of callers: principals, tokens, signed tokens, certificates."""
