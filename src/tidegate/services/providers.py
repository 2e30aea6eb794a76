"""Who answers for a chat model, and where, in the words of OpenTelemetry's conventions."""

from __future__ import annotations

from typing import Final

from langchain_core.language_models import BaseChatModel

_WELL_KNOWN: Final = {
    "aws": "aws.bedrock",
    "azure_ai": "azure.ai.inference",
    "google_genai": "gcp.gemini",
    "google_vertexai": "gcp.vertex_ai",
    "ibm": "ibm.watsonx.ai",
    "mistralai": "mistral_ai",
    "xai": "x_ai",
}
"""LangChain's packages whose name is not the provider's in `gen_ai.provider.name`, as that of OpenAI or Groq is."""

_ADDRESSES: Final = ("anthropic_api_url", "base_url", "endpoint_url", "azure_endpoint", "openai_api_base")


def provider_of(model: BaseChatModel) -> str:
    """Return the provider by the package that a model's class, or the class that it extends, is from."""
    for kind in type(model).__mro__:
        package = _package(kind)
        if package.startswith("langchain_") and package != "langchain_core":
            if package == "langchain_openai" and kind.__name__.startswith("Azure"):
                return "azure.ai.openai"
            name = package.removeprefix("langchain_")
            return _WELL_KNOWN.get(name, name)
    return _package(type(model))


def address_of(model: BaseChatModel) -> str:
    """Return the URL that a model's requests go to, with all that stands in it; empty if the model does not tell."""
    places = [(getattr(model, "root_async_client", None), "base_url"), *((model, name) for name in _ADDRESSES)]
    url = next((str(found) for place, name in places if (found := getattr(place, name, None))), "")
    return url if "://" in url or not url else f"//{url}"


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]
