"""Count the images of each class and the rows of a table that were imported."""

from __future__ import annotations

import csv
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Print one line for each class, and one for the table."""
    for folder in sorted(path for path in (HERE / "data/digits").iterdir() if path.is_dir()):
        print(f"digit {folder.name}: {sum(1 for _ in folder.glob('*.png'))} images")
    with (HERE / "data/seattle-weather.csv").open(newline="") as file:
        print(f"weather: {sum(1 for _ in csv.DictReader(file))} days")


if __name__ == "__main__":
    main()
