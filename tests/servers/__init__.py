"""Real servers on loopback for the tests: Git's own daemon and HTTP backend, files over HTTP, and S3."""
