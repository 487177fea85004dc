"""The statements, a file for each chapter. Importing one registers what it says in ../registry.py."""
from . import strings, handshake, options, listing, info, meta, tls  # noqa: F401
from . import transmission, read, write, zeroes, status, durability, termination, extended, resize  # noqa: F401
