"""
The contract between a server and its clients: the API's stubs (`v1`) and the checkpoint format.
"""
