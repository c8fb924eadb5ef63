"""Programs that write the pages of docs/reference from the code, and build the site."""
