"""Write a table of `benchmarks.data.grow_csv` as Parquet, as pandas and others do; run where pyarrow is installed."""

import sys

from pyarrow import csv, parquet

if __name__ == "__main__":
    table, path = sys.argv[1:]
    names = csv.ReadOptions(column_names=["id", "score", "label", "day"])
    parquet.write_table(csv.read_csv(table, read_options=names), path, row_group_size=100_000, compression="snappy")
