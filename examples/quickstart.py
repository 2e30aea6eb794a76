"""Summarize a document, then look at its thread again."""

import asyncio
import sys

from tidegate import Pipeline


async def main(source: str) -> None:
    """Run one document; run again, the same document is the same thread, and nothing is asked twice."""
    async with Pipeline.open() as pipeline:
        result = await pipeline.run(source)
        print(result.status, result.text, sep="\n")
        for entity in result.entities:
            found = result.enrichments.get(entity.id)
            print(entity.type, entity.text, found.data if found else None)
        if result.status == "degraded":  # a service is down: what is missing comes later, by the thread's ID
            print([item.why for item in result.missing], "again in", result.retry_in, "s")
            result = await pipeline.resume(result.thread_id)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
