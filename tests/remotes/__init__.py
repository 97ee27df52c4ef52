"""The main job against real servers, each as its users run it; started by `tests/servers/`, once for all tests."""
