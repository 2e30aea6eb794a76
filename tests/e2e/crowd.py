"""Run many documents at once: `python -m tests.e2e.crowd URL NAME COUNT`. Prints how each thread ended, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from tidegate import Pipeline, Settings


async def main(url: str, name: str, count: int) -> dict[str, list[object]]:
    """Run the documents side by side, each in a thread of its own."""
    async with Pipeline.open(Settings.read(checkpoints=url, recogniser="rules")) as pipeline:
        texts = [
            f"Report {name}-{each}. Hamburg and Bergen agreed on €{each} million in Oslo." for each in range(count)
        ]
        runs = (pipeline.run(text=text, thread_id=f"{name}-{number}") for number, text in enumerate(texts))
        results = await asyncio.gather(*runs)
    return {result.thread_id: [result.status, result.revision, len(result.entities)] for result in results}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
