"""The command line: verbs in groups over the operations, and one line for every error."""
