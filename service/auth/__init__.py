"""Who makes a call: principals, tokens, signed tokens, certificates."""
