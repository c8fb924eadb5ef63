"""Where sessions outlive their server."""
