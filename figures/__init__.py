"""Tables in, pictures out; and the root of the command line."""
