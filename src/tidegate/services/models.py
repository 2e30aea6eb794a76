"""Chat models: built from `provider:name`, or injected."""

from __future__ import annotations

import importlib
import logging
import random as randomness
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import ValidationError

from tidegate.errors import MissingExtra, SettingsError
from tidegate.resilience.breaker import Breaker
from tidegate.resilience.guard import Guard
from tidegate.resilience.journal import Journal
from tidegate.resilience.rates import Rates
from tidegate.services.chat import Chat, no_failure
from tidegate.settings import SummarySettings
from tidegate.store.clock import Clock, SystemClock

_log = logging.getLogger(__name__)

_EXTRAS = {"openai": "langchain_openai", "anthropic": "langchain_anthropic", "ollama": "langchain_ollama"}
_KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
_EXAMPLE = "a model is named provider:name, as in TIDEGATE_MODEL=openai:gpt-4o-mini"

# langchain-openai and langchain-anthropic keep one connection pool for the whole process. On a second event loop, every
# other request then fails with "Event loop is closed" (langchain-openai 1.7.3). A connection of its own costs a request
# a handshake, and a chat model takes seconds to answer.
_NOT_KEPT_ALIVE = {"Connection": "close"}

_ROOM = 4096  # tokens for what a prompt holds besides the document, and for the answer


def open_chat(
    model: str | BaseChatModel,
    settings: SummarySettings,
    *,
    breaker: Breaker,
    journal: Journal | None = None,
    rates: Rates | None = None,
    clock: Clock | None = None,
    random: randomness.Random | None = None,
) -> Chat:
    """Open a chat model, behind a guard of its own; `breaker` names the service.

    A `model` such as `openai:gpt-4o-mini` is built by LangChain with `settings.options`, without retries of its own.
    An injected one is used as it is; one that retries by itself is named in a warning, since its retries are neither
    counted by the circuit nor held to the budget. Importing a provider takes seconds: not to be called on an event loop
    that serves others.

    Raises:
        MissingExtra: the provider's package is not installed.
        SettingsError: the name, an option or the API key is wrong or missing.
    """
    clock = clock or SystemClock()
    guard = Guard(breaker, settings=settings, classify=no_failure, rates=rates, clock=clock, random=random)
    if isinstance(model, str):
        provider, name = _parsed(model)
        built = _built(provider, name, settings)
        options = settings.options
        return Chat(
            built,
            provider=provider,
            name=name,
            options=options,
            guard=guard,
            journal=journal,
            clock=clock,
            is_built=True,
        )
    provider, name = _described(model)
    if retries := _retries(model):
        _log.warning(
            "the injected chat model %s:%s retries by itself (%s); give it max_retries=0: tidegate retries, and counts",
            provider,
            name,
            retries,
        )
    return Chat(
        model, provider=provider, name=name, options={}, guard=guard, journal=journal, clock=clock, is_built=False
    )


def _parsed(model: str) -> tuple[str, str]:
    provider, _, name = model.partition(":")
    if not provider.strip() or not name.strip():
        raise SettingsError(f"model {model!r} names no provider; {_EXAMPLE}")
    return provider.strip().lower().replace("-", "_"), name.strip()


def _built(provider: str, name: str, settings: SummarySettings) -> BaseChatModel:
    model = f"model '{provider}:{name}'"
    if settings.options.get("max_retries"):
        raise SettingsError("summary.options.max_retries would retry behind the circuit's back; set summary.attempts")
    if provider in _EXTRAS:
        try:
            importlib.import_module(_EXTRAS[provider])
        except ModuleNotFoundError as error:
            raise MissingExtra(model, provider) from error
    try:
        from langchain.chat_models import init_chat_model
    except ModuleNotFoundError as error:
        raise MissingExtra(model, provider if provider in _EXTRAS else "openai") from error
    try:
        built: object = init_chat_model(name, model_provider=provider, **_arguments(provider, settings))
    except ImportError as error:
        raise SettingsError(f"{model} needs LangChain's package for {provider}, which is not installed") from error
    except ValidationError as error:  # its message quotes the arguments, the API key among them
        wrong = ", ".join(
            sorted({".".join(map(str, e["loc"])) or e["type"] for e in error.errors(include_input=False)})
        )
        raise SettingsError(f"{model} does not take these summary.options: {wrong}") from None
    except Exception as error:  # each provider has exceptions of its own for a missing key
        if "Unsupported provider" in str(error):
            raise SettingsError(f"{model}: LangChain knows no provider {provider!r}; {_EXAMPLE}") from error
        raise SettingsError(f"{model} cannot be built ({type(error).__name__}); {_key(provider)}") from error
    if not isinstance(built, BaseChatModel):
        raise SettingsError(f"{model}: summary.options must not make it configurable at run time")
    if provider == "anthropic" and not _has_key(built, settings):
        raise SettingsError(f"{model} has no API key; {_key(provider)}")
    return built


def _key(provider: str) -> str:
    return f"set {_KEYS.get(provider, 'the API key of the provider')}, or check summary.options"


def _has_key(model: BaseChatModel, settings: SummarySettings) -> bool:
    """Say whether Anthropic's model has a key, or headers in its place: it does not ask before the first request."""
    key = getattr(model, "anthropic_api_key", None)
    return key is None or bool(key.get_secret_value()) or bool(settings.options.get("default_headers"))


def _arguments(provider: str, settings: SummarySettings) -> dict[str, Any]:
    options = dict(settings.options)
    if (
        provider == "ollama"
    ):  # retries nothing, takes its timeout through httpx, and cuts a longer prompt without a word
        client = dict(options.pop("client_kwargs", {}))
        headers = {**_NOT_KEPT_ALIVE, **client.pop("headers", {})}
        kwargs = {"timeout": settings.attempt_timeout, **client, "headers": headers}
        return {"num_ctx": settings.chunk_tokens + _ROOM, **options, "client_kwargs": kwargs}
    arguments: dict[str, Any] = {"timeout": settings.attempt_timeout, **options, "max_retries": 0}
    if provider in ("openai", "anthropic"):
        arguments["default_headers"] = {**_NOT_KEPT_ALIVE, **options.get("default_headers", {})}
    if provider == "openai":
        arguments.setdefault("stream_usage", True)  # off by default where base_url is set
    return arguments


def _described(model: BaseChatModel) -> tuple[str, str]:
    """Return the provider and the name of an injected model, as far as they can be told from outside."""
    names = (getattr(model, attribute, None) for attribute in ("model_name", "model", "model_id"))
    name = next((name for name in names if isinstance(name, str) and name), type(model).__name__)
    package = type(model).__module__.partition(".")[0]
    return package.removeprefix("langchain_"), name


def _retries(model: BaseChatModel) -> str:
    """Return how a model says that it retries, an empty string if it does not; None means as its provider likes."""
    retries = getattr(model, "max_retries", 0)
    return "" if retries == 0 else f"max_retries={retries}"
