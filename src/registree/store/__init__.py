"""Bytes: stores, packs, the outbox, the cache and the local state. The only place that knows fsspec."""
