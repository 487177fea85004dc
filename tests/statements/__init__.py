"""What an NBD server owes its clients: 196 statements, each a check over a plain socket. ../conformance runs them.

Reading order: registry (what a statement is), wire, connection, negotiation, requests (the client), target (the server
under test), chapters/ (the statements), report, command_line."""
