"""What page sizes cost: python benchmarks/pages.py [ENTRIES]

For pages of 2**k entries on average: the compressed bytes and pages that a diff of 100 random edits reads, the bytes
that one edit rewrites, and the size of the topmost page.
"""

from __future__ import annotations

import random
import sys

from registree.model import manifest
from registree.model.diff import differing_pages
from registree.model.ids import hash_bytes
from registree.store.layout import compress


def main(count: int) -> None:
    """Print the table."""
    entries = [
        manifest.Entry(f"train/class-{i // 1000:04d}/{i:08d}.jpg", 0, 10_000 + i % 977, hash_bytes(str(i).encode()))
        for i in range(count)
    ]
    edited = list(entries)
    for place in random.Random(1).sample(range(count), 100):
        old = edited[place]
        edited[place] = manifest.Entry(old.path, old.kind, old.size + 1, hash_bytes(old.path.encode()))
    print("| entries a page | pages | page, bytes | top page, bytes | pages of 100 edits | bytes read for their diff |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for bits in (7, 8, 9, 10, 11, 12, 13):
        mask = (1 << bits) - 1
        manifest.boundary_level = lambda path, mask=mask: int(
            not int.from_bytes(hash_bytes(path.encode())[:4], "little") & mask
        )
        manifest.PAGE_LIMIT = 1 << 20
        before, after = list(manifest.cut_leaves(entries)), list(manifest.cut_leaves(edited))
        old, new = differing_pages([leaf.ref for leaf in before], [leaf.ref for leaf in after])
        ids = {ref.page for ref in (*old, *new)}
        read = sum(len(compress(leaf.content)) for leaf in (*before, *after) if leaf.ref.page in ids)
        page = sum(len(compress(leaf.content)) for leaf in before[:50]) // min(50, len(before))
        top = len(compress(manifest.encode_inner(1, [leaf.ref for leaf in before])))
        print(f"| {1 << bits} | {len(before)} | {page:,} | {top:,} | {len(new)} | {read:,} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
