"""What a server and its clients agree on: the API's stubs (`v1`) and the checkpoint format."""
