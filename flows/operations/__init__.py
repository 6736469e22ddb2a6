"""What can be done: one file per verb, shared by the command line, the stages of a run and notebooks."""
