"""Whether anything of the future, or of held-out users, reached training: `check.check_leaks` is the door."""
