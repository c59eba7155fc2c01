"""The commands, by what they are for. Each reads arguments, calls one function of the core, and prints."""
