"""Commits: everything that knows dulwich. What goes in and out are texts, paths and hexadecimal commit ids."""
