"""One file a verb of the `gcl` command; each defines `command`."""
