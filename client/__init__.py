"""What a user imports and runs: sessions, the command line, pictures of head traces."""
