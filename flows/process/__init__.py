"""What a process does around any work: it shows progress, ends in order, fails in one line, and cleans up."""
