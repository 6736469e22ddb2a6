"""The command line: verbs in groups over the operations, one line for every error."""
