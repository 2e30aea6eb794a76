"""Give an agent a tool that summarizes documents and completes earlier answers."""

import asyncio
import sys
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel

from tidegate import Pipeline


async def ask(model: str | BaseChatModel, question: str, folder: str) -> str:
    """Answer a question about the files in `folder`; the agent can read nothing else."""
    async with Pipeline.open() as pipeline:
        agent: Any = create_agent(model, tools=[pipeline.as_tool(root=folder)])
        answer = await agent.ainvoke({"messages": [("user", question)]})
    return str(answer["messages"][-1].text)


if __name__ == "__main__":
    print(asyncio.run(ask("openai:gpt-4o-mini", sys.argv[1], folder=".")))
