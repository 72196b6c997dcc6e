"""`Client`: the files of `aio` without waiting, written by scripts/write_client.py."""
